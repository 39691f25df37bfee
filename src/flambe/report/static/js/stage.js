// The page of a stage. The table and the curves come first, the other plots when these are there.
import "./page.js";
import {
    ask,
    bytes,
    choices,
    data,
    duration,
    html,
    nothing,
    now,
    number,
    outcome,
    render,
    $,
} from "./common.js";
import { AXIS, chart, curveChart, parallel } from "./charts.js";
import { live, merge } from "./live.js";
import { groups, meansView } from "./seeds.js";
import { VariantTable } from "./table.js";

let { stage } = data;
const rows = data.rows;
const byId = new Map(rows.map((row) => [row.id, row]));
const asking = new URLSearchParams(location.search);
const name = encodeURIComponent(stage.name);
const curves = new Map(); // id -> [steps, values]
const table = new VariantTable(rows, draw);
let tag = "";
let tags = [];
let missing = 0; // variants whose figures could not be read in time
const plots = {};

function draw() {
    const chosen = table.chosen();
    render(table.view(chosen), $("table"));
    $("count").textContent =
        chosen.length === rows.length ? `${rows.length}` : `${chosen.length} of ${rows.length}`;
    render(
        html`${outcome(stage)} <span class="dim">${stage.runs ? `${stage.done} of ${stage.planned} done` : "built where it is used: nothing runs here"}${
            stage.counts.masked ? `, ${stage.counts.masked} skipped` : ""
        }${stage.counts.failed ? `, ${stage.counts.failed} failed` : ""}${
            stage.reduce
                ? `; the best ${stage.reduce === 1 ? "one flows" : `${stage.reduce} flow`} on`
                : ""
        }${stage.stored_bytes ? `; ${bytes(stage.stored_bytes)} of checkpoints` : ""}${stage.until ? `; about ${duration(Math.max(0, stage.until - now()))} left` : ""}</span>`,
        $("stage-state"),
    );
    const configurations = groups(rows);
    $("seeds").hidden = !configurations.length;
    if (configurations.length) render(meansView(configurations), $("seeds"));
    later(chosen);
}

// Plots follow the table, but not at every key.
let pending = null;
function later(chosen) {
    clearTimeout(pending);
    pending = setTimeout(() => drawPlots(chosen), 60);
}

async function drawPlots(chosen) {
    try {
        await drawCurves(chosen);
        await drawParallel();
    } catch (error) {
        if (!error.unreachable) throw error;
        setTimeout(draw, 3000); // the charts are loaded when the connection is back
    }
}

// A chart is made once, though it is drawn again before it is there.
const making = {};
function once(chart, make) {
    making[chart] ??= make().catch((error) => {
        delete making[chart];
        throw error;
    });
    return making[chart];
}

const HINT = "point at a row or a curve; scroll to zoom";
let note = "";
let shown = []; // curves
let long = false;
function drawCurvesBar() {
    render(
        html`<div class="bar"><h2>Learning curves</h2>
      ${
          tags.length
              ? html`<label>of <select @change=${(event) => {
                    tag = event.target.value;
                    load();
                }}>
        <option value="">metric</option>${tags.filter((one) => one !== "metric").map((one) => html`<option ?selected=${one === tag}>${one}</option>`)}</select></label>`
              : nothing
      }
      ${missing ? html`<span class="dim">without ${missing} variants: there is too much to read</span>` : nothing}
      <span class="dim note">${!long ? "" : note || (shown.length > 100 ? `coloured by the best figure; ${HINT}` : HINT)}</span></div>
    ${long ? nothing : html`<p class="dim">${curves.size ? "Each variant has one step only: the table says it all." : "There are no figures yet."}</p>`}
    <div class="chart" ?hidden=${!long}></div>`,
        $("curves"),
    );
}

async function drawCurves(chosen) {
    shown = chosen
        .filter((row) => (curves.get(row.id)?.[0].length ?? 0) > 0)
        .map((row) => ({
            id: row.id,
            name: choices(row.choices) || row.id.slice(0, 8),
            best: row.best,
            steps: curves.get(row.id)[0],
            values: curves.get(row.id)[1],
        }));
    long = shown.some((curve) => curve.steps.length > 1);
    drawCurvesBar();
    if (!long) return;
    plots.curves ??= await once("curves", () =>
        curveChart($("curves").querySelector(".chart"), (curve, at) => {
            note = !curve
                ? ""
                : at === null
                  ? `${curve.name}: best ${number(curve.best)}`
                  : `${curve.name}: ${number(curve.values[at])} at step ${curve.steps[at]}`;
            drawCurvesBar();
        }),
    );
    plots.curves.set(shown, { tag: tag || "metric" });
}

async function drawParallel() {
    const varied = table.names.filter(
        (one) => new Set(rows.map((row) => JSON.stringify(row.choices[one]))).size > 1,
    );
    const measured = rows.filter((row) => typeof row.best === "number");
    if (!varied.length || measured.length < 2) return;
    render(
        html`<div class="bar"><h2>Hyper-parameters and the best metric</h2>
    ${table.only ? html`<button type="button" @click=${showAll}>Show all again</button>` : html`<span class="dim">draw on an axis to choose</span>`}</div>
    <div class="scroll"><div class="chart"></div></div>`,
        $("parallel"),
    );
    $("parallel").querySelector(".chart").style.minWidth = `${(varied.length + 1) * AXIS}px`;
    plots.parallel ??= await once("parallel", parallelChart);
    const figures = JSON.stringify(measured.map((row) => row.best));
    if (table.only || figures === plots.figures) return; // what is drawn on its axes stays
    plots.figures = figures;
    plots.drawn = measured.map((row) => row.id);
    plots.parallel.set(() => parallel(measured, varied, "best"));
}

async function parallelChart() {
    const made = await chart($("parallel").querySelector(".chart"));
    made.shown.on("axisareaselected", () => {
        const series = made.shown.getModel().getSeries()[0];
        const active = series
            .getRawIndicesByActiveState("active")
            .map((index) => plots.drawn[index]);
        table.only = active.length && active.length < plots.drawn.length ? new Set(active) : null;
        draw();
    });
    return made;
}

function showAll() {
    table.only = null;
    plots.figures = null; // axes that are drawn anew have nothing drawn on them
    draw();
}

function importanceView(told) {
    if (told.reason) return html`<h2>Importance</h2><p class="dim">${told.reason}</p>`;
    const most = Math.max(...told.parameters.map((one) => one.mean + one.std), 1e-9);
    const least = Math.min(0, ...told.parameters.map((one) => one.mean - one.std));
    const x = (value) => (100 * (value - least)) / (most - least);
    const text = (one) =>
        `${one.mean.toFixed(2).replace(/^-(0\.00)$/, "$1")} ± ${one.std.toFixed(2)}`;
    return html`<h2>Importance</h2>
    <div class="bars" role="list">${told.parameters.map(
        (one) =>
            html`
      <span class="name" title="${one.name}">${one.name}</span>
      <svg viewBox="0 0 100 16" preserveAspectRatio="none" role="listitem" aria-label="${one.name}: ${text(one)}">
        <line class="zero" x1="${x(0)}" x2="${x(0)}" y1="0" y2="16"></line>
        <rect x="${x(Math.min(0, one.mean))}" y="2" width="${Math.max(0.5, Math.abs(x(one.mean) - x(0)))}" height="12"></rect>
        <line x1="${x(one.mean - one.std)}" x2="${x(one.mean + one.std)}" y1="8" y2="8"></line></svg>
      <span class="value">${text(one)}</span>`,
    )}
    </div>
    <p class="dim">${told.estimator[0].toUpperCase()}${told.estimator.slice(1)} (scikit-learn), over ${told.variants} variants: how much
      of R² is lost when one is shuffled, and its spread over shuffles. ${
          told.score < 0.1
              ? `The forest explains next to nothing of variants that it has not seen (R² ${told.score.toFixed(2)}): don't rely on this.`
              : `It explains R² ${told.score.toFixed(2)} of variants that it has not seen.`
      }</p>`;
}

let asked = -1;
async function drawImportance() {
    const done = rows.filter((row) => typeof row.best === "number").length;
    if (done === asked || !stage.runs) return;
    asked = done;
    try {
        const told = await ask(`/api/stage/${name}/importance`);
        $("importance").dataset.ready ??= ($("importance").replaceChildren(), "yes");
        render(importanceView(told), $("importance"));
    } catch {
        asked = -1;
    }
}

let meanwhile = null; // what came while curves were loaded
async function load() {
    meanwhile = [];
    const told = await ask(
        `/api/stage/${name}/curves${tag ? `?tag=${encodeURIComponent(tag)}` : ""}`,
    );
    tags = told.tags;
    missing = told.missing;
    curves.clear();
    for (const [id, curve] of Object.entries(told.curves)) curves.set(id, curve);
    const missed = meanwhile;
    meanwhile = null;
    for (const change of missed) takePoints(change);
    draw();
}

function take(change) {
    const { points, rewound, ...fields } = change;
    const row = byId.get(change.id);
    if (row) Object.assign(row, fields);
    else {
        // a search suggested another variant
        byId.set(change.id, fields);
        table.add(fields);
    }
    if (!points) return;
    meanwhile?.push(change);
    takePoints(change);
}

function takePoints({ id, points, rewound }) {
    if (tag) return;
    const curve = rewound ? [[], []] : curves.get(id) || [[], []];
    for (const [step, value] of points) {
        if (curve[0].length && step <= curve[0].at(-1)) continue; // it came with the curves already
        curve[0].push(step);
        curve[1].push(value);
    }
    curves.set(id, curve);
}

table.hover = (id) => {
    if (plots.curves && plots.curves.pointed !== id) plots.curves.point(id);
};
table.remember = () => {
    const wanted = new URLSearchParams(table.filter ? { filter: table.filter } : {});
    if (table.sort.key !== "best" || !table.sort.down)
        wanted.set("sort", (table.sort.down ? "-" : "") + table.sort.key);
    history.replaceState(null, "", wanted.size ? `?${wanted}` : location.pathname);
};
if (asking.has("sort"))
    table.sort = {
        key: asking.get("sort").replace(/^-/, ""),
        down: asking.get("sort").startsWith("-"),
    };
table.filter = $("filter").value = asking.get("filter") || "";
$("filter").addEventListener("input", (event) => {
    table.filter = event.target.value;
    table.most = 100;
    table.remember();
    draw();
});
addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement?.tagName)) {
        event.preventDefault();
        $("filter").focus();
    }
});

draw();
load().then(drawImportance);
setInterval(drawImportance, 15000);
live({ stage: stage.name }, (news) => {
    for (const change of news.rows || []) take(change);
    [stage] = merge([stage], news.stages, "name");
    if (tag && news.rows) loadLater();
    draw();
});

let loading = null;
function loadLater() {
    loading ??= setTimeout(() => {
        loading = null;
        load();
    }, 3000);
}
