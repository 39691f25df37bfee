// The language of the filter of variants. flambe.progress.filters is the same in Python, for
// "flambe show": both are run with tests/cases/filters.json.
import { number } from "./number.js";

const TERM = /^(.+?)(>=|<=|!=|=|>|<)(.*)$/;

/** A test of one word of the filter: `name=value`, `name>number`, or text that any cell holds. */
export function test(term, columns) {
    const [, name, operator, wanted] = TERM.exec(term) || [];
    const column = name && columns.find(({ key, title }) => key === name || title === name);
    if (!column) {
        const text = term.toLowerCase();
        return (row) =>
            row.id.startsWith(text) ||
            columns.some(({ value }) =>
                String(value(row) ?? "")
                    .toLowerCase()
                    .includes(text),
            );
    }
    const figure = Number(wanted);
    return (row) => {
        const value = column.value(row);
        if (operator === "=" || operator === "!=") {
            const same =
                typeof value === "number" && wanted !== "" && !Number.isNaN(figure)
                    ? value === figure || number(value) === wanted
                    : number(value).toLowerCase() === wanted.toLowerCase() ||
                      (column.key === "state" &&
                          ((wanted === "kept" && row.kept === true) ||
                              (wanted === "stale" && !!row.stale)));
            return same === (operator === "=");
        }
        if (typeof value !== "number") return false;
        return operator === ">"
            ? value > figure
            : operator === "<"
              ? value < figure
              : operator === ">="
                ? value >= figure
                : value <= figure;
    };
}
