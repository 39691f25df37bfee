// The page of a stage. The table and the curves come first, the other plots when these are there.
import "./page.js";
import { ask, choices, data, duration, html, nothing, now, number, pill, render, svg, word, $ } from "./common.js";
import { chart, lines, parallel } from "./charts.js";
import { live, merge } from "./live.js";
import { VariantTable } from "./table.js";

let { stage } = data;
const rows = data.rows;
const byId = new Map(rows.map((row) => [row.id, row]));
const name = encodeURIComponent(stage.name);
const curves = new Map(); // id -> [steps, values]
const table = new VariantTable(rows, draw);
let tag = "";
let tags = [];
let highlighted = null;
let plots = {};

function draw() {
  const chosen = table.chosen();
  render(table.view(chosen), $("table"));
  $("count").textContent = chosen.length === rows.length ? `${rows.length}` : `${chosen.length} of ${rows.length}`;
  render(html`${pill(stage.status)} <span class="dim">${stage.runs ? `${stage.done} of ${stage.planned} done` : "built where it is used: nothing runs here"}${
    stage.counts.masked ? `, ${stage.counts.masked} skipped` : ""}${stage.counts.failed ? `, ${stage.counts.failed} failed` : ""}${
    stage.reduce ? `; the best ${stage.reduce === 1 ? "one flows" : `${stage.reduce} flow`} on` : ""}${
    stage.until ? `; about ${duration(Math.max(0, stage.until - now()))} left` : ""}</span>`, $("stage-state"));
  later(chosen);
}

// Plots follow the table, but not at every key.
let pending = null;
function later(chosen) {
  clearTimeout(pending);
  pending = setTimeout(() => drawPlots(chosen), 60);
}

async function drawPlots(chosen) {
  await drawCurves(chosen);
  await drawParallel();
}

async function drawCurves(chosen) {
  const shown = chosen.filter((row) => (curves.get(row.id)?.[0].length ?? 0) > 0)
    .map((row) => ({ id: row.id, name: choices(row.choices) || row.id.slice(0, 8), best: row.best, steps: curves.get(row.id)[0], values: curves.get(row.id)[1] }));
  const long = shown.some((curve) => curve.steps.length > 1);
  render(html`<div class="bar"><h2>Learning curves</h2>
      ${tags.length ? html`<label>of <select @change=${(event) => { tag = event.target.value; load(); }}>
        <option value="">metric</option>${tags.filter((one) => one !== "metric").map((one) => html`<option ?selected=${one === tag}>${one}</option>`)}</select></label>` : nothing}
      <span class="dim">${shown.length > 100 ? "coloured by the best figure; " : ""}point at a row to see its curve, scroll to zoom</span></div>
    ${long ? nothing : html`<p class="dim">${shown.length ? "Each variant has one step only: the table says it all." : "There are no figures yet."}</p>`}
    <div class="chart" ?hidden=${!long}></div>`, $("curves"));
  if (!long) return;
  plots.curves ??= await chart($("curves").querySelector(".chart"));
  plots.curves.set(() => lines(shown, { tag: tag || "metric", highlighted }));
}

async function drawParallel() {
  const varied = table.names.filter((one) => new Set(rows.map((row) => JSON.stringify(row.choices[one]))).size > 1);
  const measured = rows.filter((row) => typeof row.best === "number");
  if (!varied.length || measured.length < 2) return;
  render(html`<div class="bar"><h2>Hyper-parameters and the best metric</h2>
    ${table.only ? html`<button type="button" @click=${() => { table.only = null; plots.parallel.shown.dispatchAction({ type: "axisAreaSelect", parallelAxisIndex: 0, intervals: [] }); plots.parallel = undefined; $("parallel").querySelector(".chart").replaceWith(Object.assign(document.createElement("div"), { className: "chart" })); draw(); }}>Show all again</button>` : html`<span class="dim">draw on an axis to choose</span>`}</div>
    <div class="chart"></div>`, $("parallel"));
  if (!plots.parallel) {
    plots.parallel = await chart($("parallel").querySelector(".chart"));
    plots.parallel.shown.on("axisareaselected", () => {
      const series = plots.parallel.shown.getModel().getSeries()[0];
      const active = new Set(series.getRawIndicesByActiveState("active"));
      const all = rows.filter((row) => typeof row.best === "number");
      const ids = all.filter((_, index) => active.has(index)).map((row) => row.id);
      table.only = ids.length && ids.length < all.length ? new Set(ids) : null;
      draw();
    });
  }
  const figures = JSON.stringify(measured.map((row) => row.best));
  if (figures === plots.figures) return; // what is drawn on its axes stays
  plots.figures = figures;
  plots.parallel.set(() => parallel(rows, varied, "best"));
}

function importanceView(told) {
  if (told.reason) return html`<h2>Importance</h2><p class="dim">${told.reason}</p>`;
  const most = Math.max(...told.parameters.map((one) => one.mean + one.std), 1e-9);
  const least = Math.min(0, ...told.parameters.map((one) => one.mean - one.std));
  const x = (value) => 130 + ((value - least) / (most - least)) * 190;
  return html`<h2>Importance</h2>
    <svg class="bars" viewBox="0 0 400 ${told.parameters.length * 28 + 4}" role="img" aria-label="Importance of each hyper-parameter">
      <line class="zero" x1="${x(0)}" x2="${x(0)}" y1="0" y2="${told.parameters.length * 28}"></line>
      ${told.parameters.map((one, i) => svg`<g><title>${one.name}: ${one.mean.toFixed(3)} ± ${one.std.toFixed(3)}</title>
        <text x="122" y="${i * 28 + 18}" text-anchor="end">${one.name.length > 17 ? `${one.name.slice(0, 16)}…` : one.name}</text>
        <rect x="${x(Math.min(0, one.mean))}" y="${i * 28 + 6}" width="${Math.max(1, Math.abs(x(one.mean) - x(0)))}" height="16" rx="3"></rect>
        <line x1="${x(one.mean - one.std)}" x2="${x(one.mean + one.std)}" y1="${i * 28 + 14}" y2="${i * 28 + 14}"></line>
        <text class="dim" x="326" y="${i * 28 + 18}">${number(Number(one.mean.toPrecision(2)))} ± ${number(Number(one.std.toPrecision(1)))}</text></g>`)}
    </svg>
    <p class="dim">${told.estimator[0].toUpperCase()}${told.estimator.slice(1)} (scikit-learn), over ${told.variants} variants: how much
      of R² is lost when one is shuffled, and its spread over the folds. ${told.score < 0.1
      ? `The forest explains next to nothing of variants that it has not seen (R² ${told.score.toFixed(2)}): don't rely on this.`
      : `It explains R² ${told.score.toFixed(2)} of variants that it has not seen.`}</p>`;
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
  } catch { asked = -1; }
}

let meanwhile = null; // what came while curves were loaded
async function load() {
  meanwhile = [];
  const told = await ask(`/api/stage/${name}/curves${tag ? `?tag=${encodeURIComponent(tag)}` : ""}`);
  tags = told.tags;
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
  else { // a search suggested another variant
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
  if (highlighted === id) return;
  highlighted = id;
  later(table.chosen());
};
$("filter").addEventListener("input", (event) => { table.filter = event.target.value; table.most = 100; draw(); });
addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement?.tagName !== "INPUT") { event.preventDefault(); $("filter").focus(); }
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
function loadLater() { loading ??= setTimeout(() => { loading = null; load(); }, 3000); }
