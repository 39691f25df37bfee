// What is the same on every page: the state of the run, the theme, and forms that are sent when something is chosen.
import { outcome, render, $ } from "./common.js";

const { status, lost } = $("live").dataset;
render(outcome({ status, lost: Number(lost) }), $("run-status"));

$("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const shown = root.dataset.theme || (dark ? "dark" : "light");
    root.dataset.theme = shown === "dark" ? "light" : "dark";
    try {
        localStorage.setItem("flambe-theme", root.dataset.theme);
    } catch {
        /* it may be forbidden */
    }
    dispatchEvent(new Event("themechange"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    dispatchEvent(new Event("themechange")),
);

for (const select of document.querySelectorAll("select[data-submit]")) {
    select.addEventListener("change", () => select.form.submit());
}

// Times are shown in the zone of the browser.
for (const time of document.querySelectorAll("time[data-at]")) {
    const date = new Date(Number(time.dataset.at) * 1000);
    if (time.dataset.at && !Number.isNaN(date.getTime())) time.textContent = date.toLocaleString();
}

// Where a table is wider than the page, it says that it can be scrolled.
let hinting = null;
function hint() {
    hinting ??= requestAnimationFrame(() => {
        hinting = null;
        for (const box of document.querySelectorAll(".scroll"))
            box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 2);
    });
}
new MutationObserver(hint).observe($("main"), { childList: true, subtree: true });
addEventListener("resize", hint);
hint();
