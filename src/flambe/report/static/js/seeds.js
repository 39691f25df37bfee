// Variants of one configuration under several seeds: the means of their figures, in a table.
import { html, measure, nothing, number, pill, variantLink } from "./common.js";

const MOST = 100; // configurations that are shown

/** The variants of each configuration with the mean and the deviation (n - 1), the best first. */
export function groups(rows) {
    const byGroup = new Map();
    for (const row of rows) {
        if (!row.group) continue;
        if (!byGroup.has(row.group)) byGroup.set(row.group, []);
        byGroup.get(row.group).push(row);
    }
    const result = [...byGroup.values()].map(summary);
    const most = Math.max(0, ...result.map(({ count }) => count));
    const value = ({ mean }) => mean ?? Number.NEGATIVE_INFINITY;
    // A mean of fewer seeds than others have may be luck: it comes after these.
    return result.sort((a, b) => (a.count < most) - (b.count < most) || value(b) - value(a) || 0);
}

function summary(variants) {
    const figures = variants.map((row) => measure(row, "metric")).filter(Number.isFinite);
    const count = figures.length;
    const mean = count ? figures.reduce((sum, figure) => sum + figure, 0) / count : null;
    const squares = figures.reduce((sum, figure) => sum + (figure - mean) ** 2, 0);
    const deviation = count > 1 ? Math.sqrt(squares / (count - 1)) : null;
    return { variants, count, mean, deviation };
}

/** The names of hyper-parameters that a configuration has; not the seed, which differs inside. */
function namesOf(all) {
    const names = new Set(
        all.flatMap(({ variants }) => variants.flatMap((row) => Object.keys(row.choices))),
    );
    const isShared = (name) =>
        all.every(({ variants }) => new Set(variants.map((row) => row.choices[name])).size === 1);
    return [...names].filter(isShared);
}

const figures = ({ mean, deviation }) =>
    deviation === null ? number(mean) : `${number(mean)} ± ${Number(deviation.toPrecision(2))}`;

function states(variants) {
    const counts = new Map();
    for (const { status } of variants) counts.set(status, (counts.get(status) || 0) + 1);
    const parts = [...counts].map(([status, count]) =>
        counts.size === 1 ? pill(status) : html`${count} ${pill(status)} `,
    );
    return html`${parts}${variants.some((row) => row.kept) ? html`<span class="kept">kept</span>` : nothing}`;
}

export function meansView(all) {
    const names = namesOf(all);
    return html`<div class="bar"><h2>Mean over seeds <span class="dim">${all.length}</span></h2>
      <span class="dim">the last figures, with their standard deviation; <code>reduce</code> goes by the mean</span></div>
    <div class="scroll"><table class="data">
      <thead><tr>${names.map((name) => html`<th>${name}</th>`)}<th class="number">mean</th><th class="number">seeds</th><th>state</th><th>variants</th></tr></thead>
      <tbody>${all.slice(0, MOST).map(
          (group) =>
              html`<tr>
          ${names.map((name) => html`<td>${number(group.variants[0].choices[name])}</td>`)}
          <td class="number">${group.count ? figures(group) : ""}</td>
          <td class="number">${group.count === group.variants.length ? group.count : `${group.count} of ${group.variants.length}`}</td>
          <td>${states(group.variants)}</td>
          <td>${group.variants.map((row) => html`${variantLink(row, row.id.slice(0, 8))} `)}</td></tr>`,
      )}</tbody></table></div>
    ${all.length > MOST ? html`<p class="dim">and ${all.length - MOST} more</p>` : nothing}`;
}
