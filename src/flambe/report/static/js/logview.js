// Lines of a log as a page shows them.
import { html, nothing } from "./common.js";

export function entry(line, search, sources) {
    return html`<div class="entry ${line.level}"><time title="${line.time}">${line.time.slice(11) || ""}</time><span class="level">${line.level}</span>
    <span>${sources && line.source ? html`<span class="source">${line.source}</span> ` : nothing}${marked(line.text, search)}</span></div>`;
}

function marked(text, search) {
    if (!search) return text;
    const parts = [];
    const lower = text.toLowerCase();
    const wanted = search.toLowerCase();
    let at = 0;
    for (
        let found = lower.indexOf(wanted);
        found >= 0 && parts.length < 200;
        found = lower.indexOf(wanted, at)
    ) {
        parts.push(
            text.slice(at, found),
            html`<mark>${text.slice(found, found + wanted.length)}</mark>`,
        );
        at = found + wanted.length;
    }
    parts.push(text.slice(at));
    return parts;
}
