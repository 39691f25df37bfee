// The table of variants: sorted and filtered here, so that it answers at once.
import {
    base,
    html,
    measure,
    nothing,
    number,
    repeat,
    standing,
    took,
    duration,
    variantLink,
} from "./common.js";
import { test } from "./filter.js";

const STEP = 100; // rows that are shown at a time
const MANY = 6;

const why = (row) => row.error || (row.status === "masked" ? row.reason : "");

const FIXED = [
    {
        key: "best",
        title: "best",
        value: (row) => measure(row, "best"),
        show: (row) => number(measure(row, "best")),
        number: true,
    },
    {
        key: "metric",
        title: "last",
        value: (row) => measure(row, "metric"),
        show: (row) => number(measure(row, "metric")),
        number: true,
    },
    {
        key: "step",
        title: "steps",
        value: (row) => row.step,
        show: (row) => (row.step ? number(row.step) : ""),
        number: true,
    },
    { key: "time", title: "time", value: took, show: (row) => duration(took(row)), number: true },
    { key: "host", title: "host", value: (row) => row.host, show: (row) => row.host },
    { key: "state", title: "state", value: (row) => row.status, show: standing },
    {
        key: "error",
        title: "error",
        value: why,
        show: (row) => html`<span class="${row.error ? "failed" : "dim"}">${why(row)}</span>`,
        wrap: true,
    },
];

export class VariantTable {
    constructor(rows, changed) {
        this.rows = rows;
        this.changed = changed;
        this.names = [...new Set(rows.flatMap((row) => Object.keys(row.choices)))];
        this.sort = { key: "best", down: true };
        this.filter = "";
        this.most = STEP;
        this.only = null; // ids chosen in the parallel coordinates
        this.hover = () => {};
        this.remember = () => {};
    }

    add(row) {
        this.rows.push(row);
        this.names = [...new Set([...this.names, ...Object.keys(row.choices)])];
    }

    get columns() {
        const own = this.names.map((name) => ({
            key: name,
            own: true,
            title: name,
            value: (row) => row.choices[name],
            show: (row) => number(row.choices[name]),
            number: this.rows.every((row) => typeof (row.choices[name] ?? 0) === "number"),
        }));
        const fixed = FIXED.filter(
            ({ key, value }) => key !== "error" || this.rows.some(value),
        ).filter(({ key, value }) => key !== "host" || this.rows.some(value));
        // Where there are many hyper-parameters, what became of them comes first.
        const first = own.length > MANY ? 2 : 0;
        return [...fixed.slice(0, first), ...own, ...fixed.slice(first)];
    }

    /** The rows that the filter lets through, in order. */
    chosen() {
        const columns = this.columns;
        const tests = this.filter
            .trim()
            .split(/\s+/)
            .filter(Boolean)
            .map((term) => test(term, columns));
        const rows = this.rows.filter(
            (row) => (!this.only || this.only.has(row.id)) && tests.every((one) => one(row)),
        );
        const column = columns.find(({ key }) => key === this.sort.key);
        if (!column) return rows;
        const value = new Map(rows.map((row) => [row.id, column.value(row)]));
        // What is missing comes last, and NaN before it, whichever way the others are sorted.
        const missing = (v) =>
            v === null || v === undefined || v === "" ? 2 : Number.isNaN(v) ? 1 : 0;
        return rows.sort((a, b) => {
            const [x, y] = [value.get(a.id), value.get(b.id)];
            if (missing(x) || missing(y)) return missing(x) - missing(y);
            const order =
                typeof x === "number" && typeof y === "number"
                    ? x - y
                    : String(x).localeCompare(String(y), undefined, { numeric: true });
            return this.sort.down ? -order : order;
        });
    }

    view(rows) {
        const columns = this.columns;
        // The first hyper-parameter leads to the variant, too: its id is at the end.
        const first = columns.findIndex(({ own }) => own);
        return html`<table class="data">
      <thead><tr>${columns.map(
          (column) =>
              html`
        <th class="${column.number ? "number" : ""}" aria-sort="${this.sort.key !== column.key ? "none" : this.sort.down ? "descending" : "ascending"}">
          <button type="button" @click=${() => this.order(column)}>${column.title}</button></th>`,
      )}<th>id</th></tr></thead>
      <tbody @mouseleave=${() => this.hover(null)}>${repeat(
          rows.slice(0, this.most),
          (row) => row.id,
          (row) =>
              html`
        <tr @mouseenter=${() => this.hover(row.id)} @focusin=${() => this.hover(row.id)}>
          ${columns.map((column, index) => cell(column, row, index === first))}
          <td>${variantLink(row, row.id.slice(0, 8))}</td></tr>`,
      )}
      </tbody></table>
      ${
          rows.length > this.most
              ? html`<p><button type="button" @click=${() => {
                    this.most += STEP;
                    this.changed();
                }}>Show ${Math.min(STEP, rows.length - this.most)} more</button></p>`
              : nothing
      }
      ${rows.length ? nothing : html`<p class="dim">${this.rows.length ? "No variant is like that." : "There are no variants yet."}</p>`}`;
    }

    order(column) {
        const same = this.sort.key === column.key;
        this.sort = { key: column.key, down: same ? !this.sort.down : column.number === true };
        this.remember();
        this.changed();
    }
}

function cell(column, row, leads) {
    const value = column.value(row);
    const shown = column.show(row);
    return html`<td class="${column.number ? "number" : ""} ${column.wrap ? "wrap" : ""}" title="${typeof value === "string" && value.length > 30 ? value : nothing}">${leads && shown !== "" ? html`<a href="${base}/variant/${row.id}">${shown}</a>` : shown}</td>`;
}
