// The page of a variant: its state and its figures as they come, and the end of its log.
import "./page.js";
import {
    ask,
    base,
    data,
    duration,
    figure,
    html,
    measure,
    nothing,
    number,
    render,
    repeat,
    standing,
    took,
    $,
} from "./common.js";
import { chart, lines, PALETTE } from "./charts.js";
import { follow, live } from "./live.js";
import { entry } from "./logview.js";

const row = data.row;
let figures = {};
const plots = new Map();

function draw() {
    const time = took(row);
    render(
        html`
    ${figure("state", standing(row))}
    ${figure("best", number(measure(row, "best")) || "–")}${figure("last", number(measure(row, "metric")) || "–")}${figure("steps", row.step)}
    ${time !== null ? figure("time", duration(time)) : nothing}
    ${row.stopped_by ? figure("stopped by", row.stopped_by) : nothing}
    ${row.host ? figure("host", row.host) : nothing}
    ${row.attempts > 1 ? figure("attempts", row.attempts) : nothing}`,
        $("state"),
    );
    if (row.status === "masked" && row.reason) {
        render(
            html`<div class="card"><strong>It was skipped:</strong> ${row.reason}</div>`,
            $("error"),
        );
        return;
    }
    render(
        row.error
            ? html`<div class="card problem" role="alert"><strong>${row.status === "failed" ? "It failed." : "It failed before, and was tried again."}</strong><pre>${row.error}</pre></div>`
            : nothing,
        $("error"),
    );
    render(
        row.stale
            ? html`<p class="notice">This result is stale and was used again all the same: ${row.stale}.</p>`
            : row.reason && row.status !== "masked"
              ? html`<p class="dim">${row.status === "reused" ? "Reused" : "Why it was run"}: ${row.reason}.</p>`
              : nothing,
        $("reuse"),
    );
    render(
        row.history && row.history.length
            ? html`<div class="card"><h2>History</h2><ul>${row.history.map(
                  (copy) =>
                      html`<li>It took the state of <a href="${base}/variant/${copy.source}">${copy.source}</a> after step ${copy.step}, and continued with ${Object.entries(
                          copy.values || {},
                      )
                          .map(([path, value]) => `${path} = ${number(value) || value}`)
                          .join(", ")}.</li>`,
              )}</ul></div>`
            : nothing,
        $("history"),
    );
}

async function drawFigures() {
    figures = (await ask(`/api/variant/${row.id}/figures`)).figures;
    const names = Object.keys(figures);
    render(
        html`<div class="grid">${repeat(
            names,
            (name) => name,
            (name) =>
                html`<div class="card" data-figure=${name}>
    <div class="bar"><h2>${name}</h2><span class="dim">${number(figures[name][1].at(-1))}</span></div><div class="chart small"></div></div>`,
        )}</div>`,
        $("figures"),
    );
    for (const [index, name] of names.entries()) {
        const place = $("figures").querySelectorAll(".chart")[index];
        if (!plots.has(name)) plots.set(name, await chart(place));
        plots.get(name).set(() => {
            const [steps, values] = figures[name];
            const options = lines(
                [
                    {
                        id: name,
                        name,
                        steps,
                        values,
                        best: null,
                        colour: PALETTE[index % PALETTE.length],
                    },
                ],
                { tooltip: true },
            );
            options.grid = { left: 52, right: 12, top: 10, bottom: 26 };
            options.xAxis.name = "";
            return options;
        });
    }
}

let pending = null;
function figuresLater() {
    pending ??= setTimeout(() => {
        pending = null;
        drawFigures();
    }, 1000);
}

let log = [];
function drawLog() {
    const box = $("log");
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    render(
        log.length
            ? repeat(
                  log,
                  (line) => line.at,
                  (line) => entry(line, "", false),
              )
            : html`<div class="gap">It has said nothing.</div>`,
        box,
    );
    if (atEnd) box.scrollTop = box.scrollHeight;
}

async function startLog() {
    const told = await ask(`/api/log?variant=${row.id}`);
    log = told.lines.slice(-200);
    drawLog();
    $("log").scrollTop = $("log").scrollHeight;
    if (row.status === "running" || row.status === "waiting") {
        follow(
            (known) => `${base}/api/log/live?variant=${row.id}&after=${known}`,
            {
                lines(news) {
                    const first = news.lines[0]?.at ?? Infinity;
                    log = [
                        ...(news.restarted ? [] : log.filter((line) => line.at < first)),
                        ...news.lines,
                    ].slice(-500);
                    drawLog();
                },
            },
            String(told.end),
        );
    }
}

draw();
drawFigures();
startLog();
setInterval(() => {
    if (row.status === "running") draw();
}, 1000);
live({ variant: row.id }, (news) => {
    for (const change of news.rows || []) {
        const { points, rewound, ...fields } = change;
        // What comes live is the first line of an error; the page has all of it, and the traceback.
        if (fields.error && row.error.startsWith(fields.error)) delete fields.error;
        const failed = fields.error && fields.error !== row.error;
        Object.assign(row, fields);
        if (failed) location.reload(); // the traceback is in the page
        if (points) figuresLater();
    }
    draw();
});
