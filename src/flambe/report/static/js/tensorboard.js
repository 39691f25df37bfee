// TensorBoard looks once for what there is, when it is loaded: so it is loaded when there is something.
import "./page.js";
import { $, base } from "./common.js";

const EVERY = 2000; // ms
const PATIENCE = 30_000; // ms, that a run that is over is given: it may hold no figures at all

const frame = document.querySelector("iframe.tensorboard");
const waiting = $("waiting");
const isOver = $("live").dataset.status !== "running";
const begun = Date.now();

async function look() {
    let runs = [];
    try {
        const answer = await fetch(`${base}/tensorboard/app/data/runs`);
        if (answer.ok) runs = await answer.json();
    } catch {
        // The site is away for a moment.
    }
    const there = runs.some((run) => run.startsWith(frame.dataset.folder));
    if (there || (isOver && Date.now() - begun > PATIENCE)) {
        waiting.remove();
        frame.src = frame.dataset.src;
        frame.hidden = false;
    } else {
        waiting.hidden = false;
        setTimeout(look, EVERY);
    }
}

look();
