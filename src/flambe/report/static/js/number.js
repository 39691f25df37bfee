// Figures as people read them.
export function number(value) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return String(value);
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
    if (Number.isInteger(value)) return String(value);
    const rounded = Number(value.toPrecision(5));
    return Math.abs(rounded) < 1e-4 ? rounded.toExponential() : String(rounded);
}
