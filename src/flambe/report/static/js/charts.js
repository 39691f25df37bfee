// Charts by Apache ECharts, in the colours of the page. It is large, and loaded when first needed.
import { base, number } from "./common.js";

let loading = null;
function library() {
  loading ??= new Promise((done, fail) => {
    const script = document.createElement("script");
    script.src = `${base}/static/vendor/echarts/echarts.min.js`;
    script.onload = () => done(globalThis.echarts);
    script.onerror = () => fail(new Error("the charts could not be loaded"));
    document.head.append(script);
  });
  return loading;
}

export const PALETTE = ["#e8590c", "#1c7ed6", "#2f9e44", "#ae3ec9", "#f59f00", "#0c8599", "#e64980", "#6741d9", "#74b816", "#868e96"];
const SINGLE = 100; // more curves than that are drawn as one series, coloured by their best figure
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A chart in a place: `set(options)` draws, and it is drawn anew when the theme changes. */
export async function chart(place) {
  const echarts = await library();
  const shown = echarts.init(place, null, { renderer: "canvas" });
  let make = null;
  const draw = () => { if (make) shown.setOption(make(), { notMerge: true, lazyUpdate: true }); };
  addEventListener("themechange", draw);
  new ResizeObserver(() => shown.resize()).observe(place);
  return { shown, set(options) { make = options; draw(); } };
}

function common() {
  const text = colour("--dim");
  return {
    animation: false,
    textStyle: { color: text, fontFamily: "inherit" },
    // Drawn, not written as HTML: what it shows is text, whatever it is.
    tooltip: {
      renderMode: "richText", backgroundColor: colour("--card"), borderColor: colour("--line"),
      textStyle: { color: colour("--text"), fontSize: 12 }, confine: true,
    },
  };
}

function axis(more) {
  return {
    axisLine: { lineStyle: { color: colour("--line") } }, axisLabel: { color: colour("--dim") },
    splitLine: { lineStyle: { color: colour("--line"), opacity: 0.5 } }, nameTextStyle: { color: colour("--dim") }, ...more,
  };
}

const spread = (values) => {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  return [low, high];
};

/** Curves over steps: each has `id`, `name`, `steps`, `values`, `best`. */
export function lines(curves, { tag = "", highlighted = null } = {}) {
  const options = {
    ...common(),
    grid: { left: 56, right: 20, top: 24, bottom: 52 },
    xAxis: axis({ type: "value", name: "step", nameLocation: "middle", nameGap: 26, minInterval: 1, min: "dataMin", max: "dataMax" }),
    yAxis: axis({ type: "value", name: tag, scale: true }),
    dataZoom: [{ type: "inside", filterMode: "none" }],
  };
  const pairs = (curve) => curve.steps.map((step, i) => [step, curve.values[i]]);
  if (curves.length <= SINGLE) {
    options.tooltip.trigger = "item";
    options.tooltip.formatter = ({ seriesName, data }) => `${seriesName}\nstep ${data[0]}: ${number(data[1])}`;
    options.series = curves.map((curve, i) => ({
      type: "line", name: curve.name, data: pairs(curve), showSymbol: curve.steps.length < 30, symbolSize: 5,
      lineStyle: { width: curve.id === highlighted ? 4 : 1.8, opacity: highlighted && curve.id !== highlighted ? 0.2 : 1 },
      itemStyle: { color: curve.colour || PALETTE[i % PALETTE.length], opacity: highlighted && curve.id !== highlighted ? 0.2 : 1 },
      z: curve.id === highlighted ? 5 : 2, emphasis: { focus: "series" }, connectNulls: false,
    }));
    return options;
  }
  const [low, high] = spread(curves.map((curve) => curve.best).filter((value) => value !== null && value !== undefined));
  // Many points make one polyline each; gaps are left out.
  const data = curves.map((curve) => ({
    id: curve.id, name: curve.name, value: curve.best ?? low,
    coords: pairs(curve).filter((pair) => pair[1] !== null),
    lineStyle: curve.id === highlighted ? { width: 3.5, opacity: 1 } : undefined,
  })).filter((one) => one.coords.length > 1);
  options.tooltip.trigger = "item";
  options.tooltip.formatter = ({ name, value }) => `${name}\nbest ${number(value)}`;
  const [first, last] = spread(curves.flatMap((curve) => [curve.steps[0], curve.steps.at(-1)]));
  const [bottom, top] = spread(data.flatMap((one) => { const [a, b] = spread(one.coords.map((p) => p[1])); return [a, b]; }));
  Object.assign(options.xAxis, { min: first, max: last });
  Object.assign(options.yAxis, { min: bottom, max: top, axisLabel: { color: colour("--dim"), formatter: number } });
  options.visualMap = { show: false, min: low, max: high > low ? high : low + 1, dimension: 0, inRange: { color: scale() } };
  options.series = [{ type: "lines", coordinateSystem: "cartesian2d", polyline: true, data, lineStyle: { width: 1, opacity: highlighted ? 0.12 : 0.45 }, progressive: 400, clip: true }];
  return options;
}

const scale = () => ["#868e96", "#f59f00", colour("--accent")];

/** Parallel coordinates: one axis for each hyper-parameter, the metric last. */
export function parallel(rows, names, metric) {
  const measured = rows.filter((row) => typeof row[metric] === "number");
  const dims = [...names.map((name) => ({ name, values: measured.map((row) => row.choices[name] ?? null) })),
    { name: metric, values: measured.map((row) => row[metric]) }];
  const [low, high] = spread(dims.at(-1).values);
  for (const dim of dims) dim.scale = dim === dims.at(-1) ? scaleOf(dim.values, true) : scaleOf(dim.values);
  return {
    ...common(),
    parallel: { left: 50, right: 70, top: 42, bottom: 24, parallelAxisDefault: { nameTextStyle: { color: colour("--text"), fontWeight: 600 }, axisLine: { lineStyle: { color: colour("--dim") } }, axisLabel: { color: colour("--dim") }, areaSelectStyle: { color: colour("--accent"), opacity: 0.25 } } },
    parallelAxis: dims.map(({ name, scale }, dim) => ({ dim, name, ...scale })),
    visualMap: { show: false, min: low, max: high > low ? high : low + 1, dimension: dims.length - 1, inRange: { color: scale() } },
    tooltip: { ...common().tooltip, trigger: "item", formatter: ({ dataIndex }) => dims.map(({ name, values }) => `${name} ${number(values[dataIndex])}`).join("\n") },
    series: [{ type: "parallel", lineStyle: { width: measured.length > 300 ? 1 : 1.8, opacity: measured.length > 300 ? 0.35 : 0.7 }, progressive: 500, smooth: 0.1,
      data: measured.map((row, i) => dims.map(({ values, scale: { type } }) => (type === "category" ? String(values[i]) : plain(values[i])))), emphasis: { lineStyle: { width: 3.5, opacity: 1 } } }],
  };
}

const plain = (value) => (typeof value === "number" || value === null ? value : String(value));

function scaleOf(values, continuous = false) {
  const known = values.filter((value) => value !== null);
  if (!known.every((value) => typeof value === "number")) return { type: "category", data: [...new Set(values.map(String))] };
  const distinct = [...new Set(known)].sort((a, b) => a - b);
  // The values of a grid stand evenly.
  if (!continuous && distinct.length <= 8 && values.length === known.length) return { type: "category", data: distinct.map(String) };
  const [low, high] = spread(known);
  if (low > 0 && high / low >= 50) return { type: "log", min: low, max: high, axisLabel: { formatter: number } };
  return { type: "value", scale: true, min: low, max: high > low ? high : low + 1, axisLabel: { formatter: number } };
}
