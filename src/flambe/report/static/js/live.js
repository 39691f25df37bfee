// News of a run as they come; a page that lost its connection, or was hidden, catches up by itself.
import { base, outcome, render, $ } from "./common.js";

const SHOWN = { on: "live", lost: "reconnecting", over: "" };

function show(connection) {
    const place = $("live");
    const goes = place.dataset.status === "running" || place.dataset.status === "empty";
    const state = connection === "on" && !goes ? "over" : connection;
    place.dataset.connection = connection;
    place.className = `live ${state}`;
    place.textContent = SHOWN[state];
}

/** Follow a stream: `address(known)` gives its address, `handlers` what to do with its events. */
export function follow(address, handlers, known) {
    let source = null;
    let timer = null;
    let wait = 1000;
    let over = false;

    function open() {
        clearTimeout(timer);
        if (over) return;
        source = new EventSource(address(known));
        source.onopen = () => {
            wait = 1000;
            show("on");
        };
        source.onerror = () => {
            show("lost");
            // The browser comes back by itself, unless the site refused: then we do, patiently.
            if (source.readyState === EventSource.CLOSED) {
                timer = setTimeout(open, wait);
                wait = Math.min(wait * 2, 15000);
            }
        };
        for (const [name, handle] of Object.entries(handlers)) {
            source.addEventListener(name, (event) => {
                if (event.lastEventId) known = event.lastEventId;
                handle(JSON.parse(event.data));
            });
        }
    }

    function pause() {
        clearTimeout(timer);
        source?.close();
        source = null;
    }

    // Browsers allow few connections to one site: a page that nobody sees needs none.
    const seen = () => {
        if (document.hidden) pause();
        else if (!source) open();
    };
    document.addEventListener("visibilitychange", seen);
    if (!document.hidden) open();
    return {
        close() {
            over = true;
            document.removeEventListener("visibilitychange", seen);
            pause();
        },
    };
}

/** Bring a list up to date: `items` are those that changed, `keys` all of them where that did. */
export function merge(list, news, key) {
    if (!news) return list;
    const known = new Map(list.map((one) => [one[key], one]));
    for (const item of news.items || []) known.set(item[key], { ...known.get(item[key]), ...item });
    return (news.keys || list.map((one) => one[key])).map((name) => known.get(name));
}

/** Follow the run; `scope` names a stage or a variant whose rows are wanted too. */
export function live(scope, onNews) {
    const query = new URLSearchParams(scope);
    const handlers = {
        news(news) {
            if (news.run) {
                const shown = $("live").dataset;
                shown.status = news.run.status ?? shown.status;
                shown.lost = news.run.lost ?? shown.lost;
                render(
                    outcome({ status: shown.status, lost: Number(shown.lost) }),
                    $("run-status"),
                );
                show($("live").dataset.connection);
            }
            onNews(news);
        },
        anew() {
            location.reload();
        },
    };
    return follow(
        (known) => `${base}/api/live?${query}${query.size ? "&" : ""}since=${known}`,
        handlers,
        document.documentElement.dataset.cursor,
    );
}
