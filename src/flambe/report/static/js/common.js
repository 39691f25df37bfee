// What all pages use: templates, numbers and times as people read them, the state of a run.
import { html, svg, render, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";

import { number } from "./number.js";

export { html, svg, render, nothing, repeat, number };

export const base = document.documentElement.dataset.base;
export const data = JSON.parse(document.getElementById("page-data").textContent);
export const $ = (id) => document.getElementById(id);

const NOT_FINITE = { nan: NaN, inf: Infinity, "-inf": -Infinity };

/** A figure of a variant, "metric" or "best". JSON has no NaN and no infinities: `not_finite` names them. */
export const measure = (variant, name) => variant[name] ?? NOT_FINITE[variant.not_finite?.[name]];

export function duration(seconds) {
    if (seconds === null || seconds === undefined) return "";
    const whole = Math.round(seconds);
    if (whole < 60) return whole >= 10 ? `${whole} s` : `${Math.max(0, seconds).toFixed(1)} s`;
    const two = (n) => String(n).padStart(2, "0");
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    if (whole < 172800)
        return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function bytes(count) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (count >= 1024 && unit < units.length - 1) {
        count /= 1024;
        unit += 1;
    }
    return `${unit && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

// The clock of the host that writes the run: the one of this browser may be another.
const skew = Number(document.documentElement.dataset.now) - Date.now() / 1000 || 0;
export const now = () => Date.now() / 1000 + skew;

export function took(thing) {
    if (!thing.started) return null;
    if (thing.ended) return thing.ended - thing.started;
    return thing.status === "running" ? now() - thing.started : null;
}

// Words for states: what flambe calls masked, people call skipped.
const WORDS = { masked: "skipped", stopped: "stopped early", empty: "nothing yet" };
export const word = (status) => WORDS[status] || status;
export const pill = (status) => html`<span class="pill ${status}">${word(status)}</span>`;
// The state of a variant, and whether it flows on and is of other code or resources than today's.
export const standing = (row) =>
    html`${pill(row.status)}${row.kept ? html`<span class="kept">kept</span>` : nothing}${
        row.stale ? html`<span class="stale" title=${row.stale}>stale</span>` : nothing
    }`;
/** How a run or a stage stands; `lost` is how many of its variants failed for good. */
export const outcome = ({ status, lost }) =>
    status === "finished" && lost
        ? html`<span class="pill partly">finished with ${lost} failed</span>`
        : pill(status);

export const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

export function choices(value, most = 40) {
    return Object.entries(value || {})
        .map(([name, v]) => `${name}=${short(number(v), most)}`)
        .join(" ");
}

export function variantLink(variant, text) {
    const all = choices(variant.choices, 1000);
    return html`<a class="clamp" href="${base}/variant/${variant.id}" title="${all.length > 60 ? all : nothing}">${text ?? (choices(variant.choices) || variant.id.slice(0, 8))}</a>`;
}

export const figure = (name, value, wide = false) =>
    html`<div class="figure ${wide ? "wide" : ""}"><span>${name}</span><strong>${value}</strong></div>`;

export async function ask(path) {
    const answer = await fetch(base + path);
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
}
