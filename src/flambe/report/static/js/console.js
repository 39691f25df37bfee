// The console: the end of a log, what comes, and what was before when the reader scrolls up.
import "./page.js";
import { ask, base, bytes, data, html, nothing, render, repeat, $ } from "./common.js";
import { follow } from "./live.js";
import { entry } from "./logview.js";

const MOST = 5000; // lines that are kept on the page
const form = $("controls");
const box = $("log");
let lines = [];
let start = 0; // where the first line begins
let end = 0; // how far was read
let more = false;
let busy = false;
let following = true;
let stream = null;
let generation = 0;

function query(extra) {
    const wanted = new URLSearchParams(extra);
    for (const [name, value] of new FormData(form)) if (value) wanted.set(name, value);
    if (data.variant) wanted.set("variant", data.variant);
    return wanted;
}

function draw() {
    const search = form.elements.search.value;
    render(
        html`
    ${more ? html`<div class="gap"><button type="button" @click=${() => earlier()}>${busy ? "Looking …" : `Earlier (${bytes(start)} before)`}</button></div>` : nothing}
    ${repeat(
        lines,
        (line) => line.at,
        (line) =>
            line.gap
                ? html`<div class="gap">${line.gap}</div>`
                : entry(line, search, !data.variant),
    )}
    ${lines.length || busy ? nothing : html`<div class="gap">${more ? "Nothing found yet." : "There is nothing here."}</div>`}`,
        box,
    );
    $("log-state").textContent =
        `${lines.length} lines shown; ${bytes(end)} in all${following ? "" : "; paused"}`;
    if (following) box.scrollTop = box.scrollHeight;
}

async function load() {
    generation += 1;
    const mine = generation;
    stream?.close();
    lines = [];
    busy = true;
    let place = null;
    do {
        // a search may need several goes to fill the page
        const told = await ask(`/api/log?${query(place === null ? {} : { before: place })}`);
        if (mine !== generation) return;
        if (place === null) end = told.end;
        lines = [...told.lines, ...lines];
        start = told.start;
        more = told.more;
        place = start;
        draw();
    } while (more && lines.length < 100);
    busy = false;
    draw();
    stream = follow(
        (known) => `${base}/api/log/live?${query({ after: known })}`,
        { lines: take },
        String(end),
    );
}

async function earlier() {
    if (busy || !more) return;
    busy = true;
    const mine = generation;
    const before = box.scrollHeight - box.scrollTop;
    const told = await ask(`/api/log?${query({ before: start })}`);
    busy = false;
    if (mine !== generation) return;
    lines = [...told.lines, ...lines].slice(0, MOST);
    ({ start, more } = told);
    draw();
    box.scrollTop = box.scrollHeight - before;
}

let held = [];
function take(told) {
    if (told.restarted) {
        load();
        return;
    }
    const gap = told.skipped
        ? [
              {
                  at: `gap-${told.at}`,
                  gap: `… ${bytes(told.skipped)} went by faster than they can be shown …`,
              },
          ]
        : [];
    held.push(...gap, ...told.lines);
    end = told.at;
    if (following) flush();
    else $("log-state").textContent = `${held.length} new lines; paused`;
}

function flush() {
    // A last line that had no end is told again when it has one.
    const first = held.find((line) => !line.gap)?.at ?? Infinity;
    lines = [...lines.filter((line) => line.gap || line.at < first), ...held];
    held = [];
    if (lines.length > MOST) {
        lines = lines.slice(-MOST);
        start = lines.find((line) => typeof line.at === "number").at;
        more = true;
    }
    draw();
}

function setFollowing(on) {
    following = on;
    $("follow").textContent = on ? "Pause" : `Follow`;
    $("follow").setAttribute("aria-pressed", String(on));
    if (on) flush();
    else draw();
}

$("follow").addEventListener("click", () => setFollowing(!following));
box.addEventListener(
    "scroll",
    () => {
        const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
        if (following && !atEnd) setFollowing(false);
        if (box.scrollTop < 40 && more && !following) earlier();
    },
    { passive: true },
);
let typing = null;
form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
        history.replaceState(null, "", `?${query({})}`);
        setFollowing(true);
        load();
    }, 250);
});
form.addEventListener("submit", (event) => event.preventDefault());
load();
