// The pipeline as a graph: dagre lays it out, each stage is a link.
import dagre from "../vendor/dagre/dagre.esm.js";
import { base, nothing, short, svg, word } from "./common.js";

const WIDTH = 172;
const HEIGHT = 62;

export function graph(stages, room) {
    const layout = new dagre.graphlib.Graph();
    const upright = room < 640;
    layout.setGraph({
        rankdir: upright ? "TB" : "LR",
        nodesep: 26,
        ranksep: upright ? 34 : 54,
        marginx: 6,
        marginy: 12,
    });
    layout.setDefaultEdgeLabel(() => ({}));
    for (const stage of stages) layout.setNode(stage.name, { width: WIDTH, height: HEIGHT });
    for (const stage of stages) for (const from of stage.links) layout.setEdge(from, stage.name);
    dagre.layout(layout);
    const { width, height } = layout.graph();
    return svg`<svg width="${Math.ceil(width)}" height="${Math.ceil(height)}" viewBox="0 0 ${Math.ceil(width)} ${Math.ceil(height)}" role="group" aria-label="Stages and their links">
    <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z"></path></marker></defs>
    ${layout.edges().map((edge) => svg`<path class="edge" d="${path(layout.edge(edge).points)}" marker-end="url(#arrow)"><title>${edge.v} → ${edge.w}</title></path>`)}
    ${stages.map((stage) => node(stage, layout.node(stage.name)))}
  </svg>`;
}

function path(points) {
    const [first, ...rest] = points.map(({ x, y }) => [x.toFixed(1), y.toFixed(1)]);
    let text = `M${first}`;
    // Smooth through the middle points, straight into the last.
    for (let i = 0; i < rest.length - 1; i += 1) {
        const [x, y] = rest[i];
        const [u, v] = rest[i + 1];
        const end =
            i === rest.length - 2
                ? [u, v]
                : [(Number(x) + Number(u)) / 2, (Number(y) + Number(v)) / 2];
        text += ` Q${x} ${y} ${end[0]} ${end[1]}`;
    }
    return rest.length === 1 ? `${text} L${rest[0]}` : text;
}

function told(stage) {
    const failed = stage.counts.failed ? `, ${stage.counts.failed} failed` : "";
    if (!stage.runs) return `${stage.planned} variant${stage.planned === 1 ? "" : "s"}`;
    if (stage.status === "running") return `running, ${stage.done} of ${stage.planned}${failed}`;
    if (stage.status === "finished" && failed) return `${stage.done} of ${stage.planned}${failed}`;
    return `${word(stage.status)}, ${stage.done} of ${stage.planned}${failed}`;
}

function node(stage, { x, y }) {
    const left = x - WIDTH / 2;
    const top = y - HEIGHT / 2;
    const share = stage.planned ? Math.min(1, stage.done / stage.planned) : 0;
    const text = told(stage);
    return svg`<a class="node ${stage.status === "finished" && stage.lost ? "partly" : stage.status} ${stage.runs ? "" : "still"}" href="${base}/stage/${encodeURIComponent(stage.name)}" aria-label="${stage.name}: ${text}">
    <title>${stage.name}${stage.tag ? ` (${stage.tag})` : ""}: ${text}${stage.runs ? "" : ", built where used"}${stage.reduce ? `; kept: the best ${stage.reduce}` : ""}</title>
    <rect class="box" x="${left}" y="${top}" width="${WIDTH}" height="${HEIGHT}" rx="8"></rect>
    <rect class="fill" x="${left}" y="${top + 10}" width="4" height="${HEIGHT - 20}" rx="2"></rect>
    <text x="${left + 15}" y="${top + 24}">${short(stage.name, 18)}</text>
    <text class="sub" x="${left + 15}" y="${top + 42}">${short(text, 25)}</text>
    ${
        stage.runs
            ? svg`<rect class="rail" x="${left + 15}" y="${top + 50}" width="${WIDTH - 30}" height="4" rx="2"></rect>
    <rect class="fill" x="${left + 15}" y="${top + 50}" width="${((WIDTH - 30) * share).toFixed(1)}" height="4" rx="2"></rect>`
            : nothing
    }
  </a>`;
}
