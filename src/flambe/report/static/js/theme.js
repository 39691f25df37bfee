// Before anything is painted: the reader's choice of light or dark, if there is one.
(() => {
    let chosen = null;
    try {
        chosen = localStorage.getItem("flambe-theme");
    } catch {
        /* it may be forbidden */
    }
    if (chosen) document.documentElement.dataset.theme = chosen;
})();
