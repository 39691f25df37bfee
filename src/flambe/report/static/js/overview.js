// The overview: how far the run is, which variant wins, what failed and why, and on which hosts.
import "./page.js";
import {
    base,
    bytes,
    data,
    duration,
    figure,
    html,
    measure,
    nothing,
    now,
    number,
    pill,
    render,
    repeat,
    standing,
    took,
    variantLink,
    word,
    $,
} from "./common.js";
import { graph } from "./graph.js";
import { live, merge } from "./live.js";

const { run } = data;
let { hosts } = data;

const MESSAGES = {
    empty: "Nothing has run in this folder yet. This page will show it when it does.",
    interrupted: "This run was interrupted. The same command with --resume continues it.",
};

function summary() {
    if (run.status === "empty") return nothing;
    const running = run.stages.filter((stage) => stage.status === "running");
    const left = running
        .map((stage) => stage.until)
        .filter(Boolean)
        .map((time) => Math.max(0, time - now()));
    const waiting = run.stages.some((stage) => stage.runs && stage.status === "waiting");
    return html`
    ${figure(
        "progress",
        html`${run.done} of ${run.planned} variants
      <progress max="${Math.max(1, run.planned)}" value="${run.done}" aria-label="progress"></progress>`,
        true,
    )}
    ${
        run.idle && run.status === "finished"
            ? figure("took", "nothing was left to run")
            : figure(run.status === "running" ? "running for" : "took", duration(took(run) ?? 0))
    }
    ${left.length ? figure(waiting ? `left in ${running[0].name}` : "left", `about ${duration(Math.max(...left))}`) : nothing}
    ${run.best ? figure(`best of ${run.best.stage}`, html`${number(measure(run.best, "best"))} <small>${variantLink(run.best)}</small>`) : nothing}
    ${run.stored_bytes ? figure("checkpoints", bytes(run.stored_bytes)) : nothing}
    ${run.failed ? figure("failures", html`<a class="failed" href="#failures">${run.failed}</a>`) : nothing}`;
}

function notice() {
    const text = MESSAGES[run.status];
    if (run.status === "failed" && run.error) {
        return html`<div class="card problem" role="alert"><strong>This run failed.</strong><pre>${run.error}</pre></div>`;
    }
    return text ? html`<p class="notice">${text}</p>` : nothing;
}

function best() {
    const ranked = run.stages.filter((stage) => stage.runs && stage.best.length);
    if (!ranked.length)
        return html`<h2>Best variants</h2><p class="dim">No variant has a metric yet.</p>`;
    return html`<h2>Best variants</h2>${[...ranked].reverse().map(
        (stage) =>
            html`
    <h3><a href="${base}/stage/${encodeURIComponent(stage.name)}">${stage.name}</a>
      <span class="dim">${word(stage.status)}${stage.reduce ? `, the best ${stage.reduce === 1 ? "one flows" : `${stage.reduce} flow`} on` : ""}${stage.stored_bytes ? `, ${bytes(stage.stored_bytes)} of checkpoints` : ""}</span></h3>
    <div class="scroll"><table class="data">
      <thead><tr><th>variant</th><th class="number">best</th><th class="number extra">last</th><th>state</th></tr></thead>
      <tbody>${stage.best.map(
          (variant) =>
              html`<tr>
        <td class="wrap">${variantLink(variant)}</td>
        <td class="number">${number(measure(variant, "best"))}</td><td class="number extra">${number(measure(variant, "metric"))}</td>
        <td>${standing(variant)}</td></tr>`,
      )}
      </tbody></table></div>`,
    )}`;
}

function failures() {
    if (!run.failures.length) return nothing;
    return html`<h2>Failures</h2>${repeat(
        run.failures,
        (one) => one.id,
        (one) =>
            html`<div class="failure">
    <span class="dim">${one.stage}</span> ${variantLink(one)} ${pill(one.status)}
    ${one.host ? html`<span class="dim">on ${one.host}</span>` : nothing}
    <pre>${one.error}</pre></div>`,
    )}
    ${run.failed > run.failures.length ? html`<p class="dim">and ${run.failed - run.failures.length} more: see the tables of the stages</p>` : nothing}`;
}

function hostRows() {
    if (!hosts?.length) return nothing;
    const gpus = hosts.some((host) => host.gpus?.length);
    return html`<h2>Hosts</h2><div class="scroll"><table class="data">
    <thead><tr><th>host</th><th class="number">running</th><th>CPU</th><th>memory</th>${gpus ? html`<th>GPU</th>` : nothing}</tr></thead>
    <tbody>${hosts.map(
        (host) =>
            html`<tr><td>${host.host}</td><td class="number">${host.running}</td>
      <td>${host.cpu === undefined ? html`<span class="dim">${host.cpus ? `${host.cpus} CPUs` : "not known"}</span>` : load(host.cpu / 100, `${Math.round(host.cpu)} % of ${host.cpus}`)}</td>
      <td>${host.memory_total ? load(host.memory / host.memory_total, bytes(host.memory), `${bytes(host.memory)} of ${bytes(host.memory_total)}`) : nothing}</td>
      ${gpus ? html`<td>${(host.gpus || []).map((gpu) => load(gpu.use / 100, `${Math.round(gpu.use)} %`))}</td>` : nothing}</tr>`,
    )}
    </tbody></table></div>`;
}

const load = (share, text, whole = text) =>
    html`<span class="load" title="${whole}"><meter min="0" max="1" value="${share}" aria-label="${whole}"></meter> <span class="dim">${text}</span></span> `;

let drawn = "";
function draw() {
    $("summary").dataset.ready ??= ($("summary").replaceChildren(), "yes");
    render(summary(), $("summary"));
    render(best(), $("best"));
    render(failures(), $("failures"));
    render(hostRows(), $("hosts"));
    if (!$("notice")) $("summary").insertAdjacentHTML("afterend", '<div id="notice"></div>');
    render(notice(), $("notice"));
    const wanted =
        JSON.stringify(run.stages.map((s) => [s.name, s.status, s.done, s.planned, s.counts])) +
        $("graph").clientWidth;
    if (run.stages.length && wanted !== drawn) {
        drawn = wanted;
        render(graph(run.stages, $("graph").clientWidth), $("graph"));
    }
    document.title = `${run.status === "running" ? `${run.done}/${run.planned} ` : ""}${run.name} · flambe`;
}

draw();
addEventListener("resize", draw);
setInterval(() => {
    if (run.status === "running") render(summary(), $("summary"));
}, 1000);
live({}, (news) => {
    Object.assign(run, news.run);
    run.stages = merge(run.stages, news.stages, "name");
    run.failures = merge(run.failures, news.failures, "id");
    hosts = merge(hosts, news.hosts, "host");
    draw();
});
