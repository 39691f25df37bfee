// Charts by Apache ECharts, in the colours of the page. It is large, and loaded when first needed.
import { base, number, short } from "./common.js";

let loading = null;
function library() {
    loading ??= new Promise((done, fail) => {
        const script = document.createElement("script");
        script.src = `${base}/static/vendor/echarts/echarts.min.js`;
        script.onload = () => done(globalThis.echarts);
        script.onerror = () => {
            loading = null;
            script.remove();
            fail(Object.assign(new Error("the charts could not be loaded"), { unreachable: true }));
        };
        document.head.append(script);
    });
    return loading;
}

export const PALETTE = [
    "#e8590c",
    "#1c7ed6",
    "#2f9e44",
    "#ae3ec9",
    "#f59f00",
    "#0c8599",
    "#e64980",
    "#6741d9",
    "#74b816",
    "#868e96",
];
const SINGLE = 100; // more curves than that are drawn as one series, coloured by their best figure
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A chart in a place: `set(options)` draws, and it is drawn anew when the theme changes. */
export async function chart(place) {
    const echarts = await library();
    const shown = echarts.init(place, null, { renderer: "canvas" });
    let make = null;
    const draw = () => {
        if (make) shown.setOption(make(), { notMerge: true });
    };
    addEventListener("themechange", draw);
    new ResizeObserver(() => shown.resize()).observe(place);
    return {
        shown,
        set(options) {
            make = options;
            draw();
        },
    };
}

function common() {
    const text = colour("--dim");
    return {
        animation: false,
        textStyle: { color: text, fontFamily: "inherit" },
        // Drawn, not written as HTML: what it shows is text, whatever it is.
        tooltip: {
            renderMode: "richText",
            backgroundColor: colour("--card"),
            borderColor: colour("--line"),
            textStyle: { color: colour("--text"), fontSize: 12 },
            confine: true,
        },
    };
}

function axis(more) {
    return {
        axisLine: { lineStyle: { color: colour("--line") } },
        axisLabel: { color: colour("--dim") },
        splitLine: { lineStyle: { color: colour("--line"), opacity: 0.5 } },
        nameTextStyle: { color: colour("--dim") },
        ...more,
    };
}

const spread = (values) => {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
        if (value < low) low = value;
        if (value > high) high = value;
    }
    return [low, high];
};

const pairs = (curve) =>
    curve.steps.map((step, i) => [step, curve.values[i]]).filter((pair) => pair[1] !== null);

/** Curves over steps: each has `id`, `name`, `steps`, `values`, `best`. */
export function lines(curves, { tag = "", tooltip = false } = {}) {
    const options = {
        ...common(),
        grid: { left: 56, right: 20, top: 24, bottom: 52 },
        xAxis: axis({
            type: "value",
            name: "step",
            nameLocation: "middle",
            nameGap: 26,
            minInterval: 1,
            min: "dataMin",
            max: "dataMax",
        }),
        yAxis: axis({
            type: "value",
            name: tag,
            scale: true,
            axisLabel: { color: colour("--dim"), formatter: number },
        }),
        dataZoom: [{ type: "inside", filterMode: "none" }],
    };
    if (!tooltip) delete options.tooltip;
    else options.tooltip.formatter = ({ data }) => `step ${data[0]}: ${number(data[1])}`;
    if (curves.length <= SINGLE) {
        options.series = curves.map((curve, i) => ({
            type: "line",
            name: curve.name,
            data: curve.steps.map((step, at) => [step, curve.values[at]]),
            showSymbol: curve.steps.length < 30,
            symbolSize: 5,
            lineStyle: { width: 1.8 },
            itemStyle: { color: curve.colour || PALETTE[i % PALETTE.length] },
            silent: !tooltip,
            connectNulls: false,
        }));
        return options;
    }
    const [low, high] = spread(
        curves.map((curve) => curve.best).filter((value) => value !== null && value !== undefined),
    );
    // Many points make one polyline each; gaps are left out.
    const data = curves
        .map((curve) => ({ value: curve.best ?? low, coords: pairs(curve) }))
        .filter((one) => one.coords.length > 1);
    const [first, last] = spread(curves.flatMap((curve) => [curve.steps[0], curve.steps.at(-1)]));
    const [bottom, top] = spread(data.flatMap((one) => spread(one.coords.map((pair) => pair[1]))));
    Object.assign(options.xAxis, { min: first, max: last });
    Object.assign(options.yAxis, { min: bottom, max: top });
    options.visualMap = {
        show: false,
        min: low,
        max: high > low ? high : low + 1,
        dimension: 0,
        inRange: { color: scale() },
    };
    options.series = [
        {
            type: "lines",
            coordinateSystem: "cartesian2d",
            polyline: true,
            data,
            lineStyle: { width: 1, opacity: 0.45 },
            progressive: 400,
            clip: true,
            silent: true,
        },
    ];
    return options;
}

/** A chart of curves in which one is pointed at, by its id or by the mouse; `told(curve, index)` hears which. */
export async function curveChart(place, told) {
    const plot = await chart(place);
    const { shown } = plot;
    const canvas = shown.getZr();
    let curves = [];
    let pointed = null;
    let where = null; // at which of its points
    let over = null; // it lies above the chart: the others are not drawn again

    const pixel = (pair) => shown.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, pair);
    const area = () => shown.getModel().getComponent("grid").coordinateSystem.getRect();

    function point(id, at = null) {
        if (over) canvas.remove(over);
        over = null;
        [pointed, where] = [id, at];
        const curve = curves.find((one) => one.id === id);
        if (curve) {
            const { graphic } = globalThis.echarts;
            over = new graphic.Group({ silent: true });
            over.setClipPath(new graphic.Rect({ shape: { ...area() } }));
            const points = pairs(curve).map(pixel);
            const drawn = (style) =>
                over.add(
                    new graphic.Polyline({
                        shape: { points },
                        style: { fill: null, ...style },
                        zlevel: 3,
                        silent: true,
                    }),
                );
            drawn({ stroke: colour("--card"), lineWidth: 7 });
            drawn({ stroke: colour("--text"), lineWidth: 3 });
            canvas.add(over);
        }
        told(curve, at);
    }

    function nearest(x, y) {
        const { x: left, y: top, width, height } = area();
        if (x < left || x > left + width || y < top || y > top + height) return null;
        const [step] = shown.convertFromPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [x, y]);
        const [zero, one] = [pixel([0, 0])[1], pixel([0, 1])[1]];
        let found = null;
        let least = 24;
        for (const curve of curves) {
            const at = closest(curve.steps, step);
            const away = Math.abs(zero + (one - zero) * between(curve, at, step) - y);
            if (away < least) {
                least = away;
                found = [curve.id, at];
            }
        }
        return found;
    }

    canvas.on("mousemove", ({ offsetX, offsetY }) => {
        const [id, at] = nearest(offsetX, offsetY) || [null, null];
        point(id, at);
        canvas.setCursorStyle(id ? "pointer" : "default");
    });
    canvas.on("globalout", () => point(null));
    canvas.on("click", ({ offsetX, offsetY }) => {
        const [id] = nearest(offsetX, offsetY) || [];
        if (id) location.href = `${base}/variant/${id}`;
    });
    const again = () => {
        if (pointed) point(pointed, where);
    };
    shown.on("datazoom", again);
    new ResizeObserver(again).observe(place);
    return {
        point,
        get pointed() {
            return pointed;
        },
        set(shownCurves, options) {
            curves = shownCurves;
            plot.set(() => lines(curves, options));
            again();
        },
    };
}

/** The value of a curve at a step, which may lie between two of its own. */
function between({ steps, values }, at, step) {
    const other = step < steps[at] ? at - 1 : at + 1;
    if (values[at] === null || !(other in steps) || values[other] === null)
        return values[at] ?? NaN;
    return (
        values[at] +
        ((values[other] - values[at]) * (step - steps[at])) / (steps[other] - steps[at])
    );
}

/** The index of the value in a sorted list that is closest to a value. */
function closest(values, wanted) {
    let low = 0;
    let high = values.length - 1;
    while (low < high) {
        const middle = (low + high) >> 1;
        if (values[middle] < wanted) low = middle + 1;
        else high = middle;
    }
    return low && wanted - values[low - 1] < values[low] - wanted ? low - 1 : low;
}

const scale = () => ["#868e96", "#f59f00", colour("--accent")];

export const AXIS = 95; // pixels that an axis needs at least

/** Parallel coordinates: one axis for each hyper-parameter, the metric last. */
export function parallel(measured, names, metric) {
    const dims = [
        ...names.map((name) => ({
            name,
            values: measured.map((row) => row.choices[name] ?? null),
        })),
        { name: metric, values: measured.map((row) => row[metric]) },
    ];
    const [low, high] = spread(dims.at(-1).values);
    for (const dim of dims) dim.scale = scaleOf(dim.values);
    const figures = dims.at(-1);
    if (figures.scale.type === "log") Object.assign(figures.scale, { type: "value", scale: true });
    return {
        ...common(),
        parallel: {
            left: 50,
            right: 70,
            top: 42,
            bottom: 24,
            parallelAxisDefault: {
                nameTextStyle: { color: colour("--text"), fontWeight: 600 },
                axisLine: { lineStyle: { color: colour("--dim") } },
                axisLabel: {
                    color: colour("--text"),
                    backgroundColor: colour("--card"),
                    padding: [1, 3],
                    borderRadius: 3,
                },
                nameTruncate: { maxWidth: AXIS - 10 },
                areaSelectStyle: { color: colour("--accent"), opacity: 0.25 },
            },
        },
        parallelAxis: dims.map(({ name, scale }, dim) => ({ dim, name, ...scale })),
        visualMap: {
            show: false,
            min: low,
            max: high > low ? high : low + 1,
            dimension: dims.length - 1,
            inRange: { color: scale() },
        },
        tooltip: {
            ...common().tooltip,
            trigger: "item",
            formatter: ({ dataIndex }) =>
                dims.map(({ name, values }) => `${name} ${number(values[dataIndex])}`).join("\n"),
        },
        series: [
            {
                type: "parallel",
                lineStyle: {
                    width: measured.length > 300 ? 1 : 1.8,
                    opacity: measured.length > 300 ? 0.35 : 0.7,
                },
                progressive: 500,
                smooth: 0.1,
                data: measured.map((row, i) =>
                    dims.map(({ values, scale: { type } }) =>
                        type === "category" ? String(values[i]) : plain(values[i]),
                    ),
                ),
                emphasis: { lineStyle: { width: 3.5, opacity: 1 } },
            },
        ],
    };
}

const plain = (value) => (typeof value === "number" || value === null ? value : String(value));

const TICKS = 8; // values of a grid that are written beside their axis

/** How an axis shows values: text by kind; numbers by size, by their logarithm where that spreads them more evenly. */
function scaleOf(values) {
    const known = values.filter((value) => value !== null);
    if (!known.every((value) => typeof value === "number")) {
        return {
            type: "category",
            data: [...new Set(values.map(String))],
            axisLabel: { formatter: (text) => short(text, 14) },
        };
    }
    const distinct = [...new Set(known)].sort((a, b) => a - b);
    const [low, high] = [distinct[0], distinct.at(-1)];
    const type = isGeometric(distinct) ? "log" : "value";
    const [min, max] =
        low < high ? [low, high] : type === "log" ? [low / 2, low * 2] : [low - 0.5, low + 0.5];
    const own = distinct.length <= TICKS ? { customValues: distinct } : {};
    const formatter =
        distinct.length <= TICKS ? number : (value) => number(Number(value.toPrecision(3)));
    return { type, min, max, axisTick: own, axisLabel: { formatter, hideOverlap: true, ...own } };
}

/** Whether sorted numbers, all positive, lie more evenly by their logarithms than as they are. */
export function isGeometric(sorted) {
    const [low, high] = [sorted[0], sorted.at(-1)];
    if (!(low > 0) || high / low < 3 || sorted.length < 2) return false;
    const uneven = (map) => {
        const length = map(high) - map(low);
        return Math.max(
            ...sorted.slice(1).map((value, i) => (map(value) - map(sorted[i])) / length),
        );
    };
    return high / low >= 1000 && sorted.length === 2
        ? true
        : uneven(Math.log) < uneven((value) => value) - 1e-9;
}
