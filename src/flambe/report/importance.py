"""How much each hyper-parameter matters for the metric.

A random forest (scikit-learn) predicts the metric from the hyper-parameters; the importance of one
is how much worse it predicts variants that it has not seen when that hyper-parameter is shuffled
among them: permutation importance (Breiman, "Random Forests", Machine Learning 45, 2001), in units
of R². Each variant is predicted by a forest that was fitted without its fold, and R² is of all
predictions together: a fold of two or three variants has none that means anything.

It runs in its own process (``python -m flambe.report.importance``, JSON in, JSON out): its
libraries are large, and it keeps a processor busy for a while.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from flambe.progress import finite
from flambe.report.payloads import Importance, ParameterImportance

if TYPE_CHECKING:  # imported in the process that estimates
    import numpy as np
    from numpy.typing import NDArray

FEWEST = 10  # variants, and at least three for each hyper-parameter
FOLDS, SPLITS, SHUFFLES, TREES = 5, 3, 5, 100
MOST = 3_000  # variants that are used
ESTIMATE_SECONDS = 120.0  # that an estimate may take
ESTIMATOR = "permutation importance of a random forest, in five folds"


async def importance(
    choices: Sequence[Mapping[str, object]], metrics: Sequence[float]
) -> Importance:
    """Return the importance of each hyper-parameter.

    Parameters
    ----------
    choices
        The hyper-parameters of each variant.
    metrics
        The metric of each variant.

    Returns
    -------
    Importance
        ``estimator``; ``parameters``: of each ``name``, ``mean`` and ``std`` of its importance,
        the largest first; ``score``: how much of the variance the forest explains in variants that
        it has not seen (R²). Or ``reason``, if there is no estimate.
    """
    varied = await asyncio.to_thread(_varied, choices)
    fewest = max(FEWEST, 3 * len(varied))
    if not varied:
        return {"reason": "Nothing was varied here: there is nothing to compare."}
    if len(metrics) < fewest:
        counts = f"{len(metrics)} of them have a metric now, and {fewest} are needed"
        return {"reason": f"Too few variants to tell: {counts} for {len(varied)} hyper-parameters."}
    if len(set(metrics)) == 1:
        return {"reason": "All variants have the same metric: nothing makes a difference."}
    request = {"names": varied, "choices": choices[:MOST], "metrics": metrics[:MOST]}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flambe.report.importance"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        text = await asyncio.to_thread(json.dumps, request)
        written, _ = await asyncio.wait_for(process.communicate(text.encode()), ESTIMATE_SECONDS)
    except asyncio.TimeoutError:
        limit = f"{ESTIMATE_SECONDS:.0f} seconds"
        return {"reason": f"The importance could not be estimated within {limit}."}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == NOT_INSTALLED:
        return {"reason": "This needs scikit-learn where the site runs: pip install scikit-learn"}
    if process.returncode != 0:
        return {"reason": "The importance could not be estimated."}
    result: Importance = finite(json.loads(written))
    return result


def _varied(choices: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the hyper-parameters that have more than one value."""
    values: dict[str, set[str]] = {}
    for row in choices:
        for name in row:
            values.setdefault(name, set())
    for row in choices:
        for name, texts in values.items():
            if len(texts) < 2:
                texts.add(json.dumps(row.get(name)))
    return [name for name, texts in values.items() if len(texts) > 1]


NOT_INSTALLED = 3


def estimate(
    names: Sequence[str], choices: Sequence[Mapping[str, object]], metrics: Sequence[float]
) -> Importance:
    """Estimate the importance; see :func:`importance`."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    x = np.column_stack([_codes([row.get(name) for row in choices]) for name in names])
    y = np.asarray(metrics, dtype=float)
    scores: list[float] = []
    losses: list[list[float]] = []  # of R², by shuffle and hyper-parameter
    for split in range(SPLITS):
        random = np.random.RandomState(split)
        folds = [
            (RandomForestRegressor(TREES, random_state=split).fit(x[train], y[train]), test)
            for train, test in KFold(FOLDS, shuffle=True, random_state=random).split(x)
        ]

        scores.append(_score(folds, x, y))
        for _ in range(SHUFFLES):
            losses.append([])
            for column in range(len(names)):
                shuffled = x.copy()
                shuffled[:, column] = random.permutation(shuffled[:, column])
                losses[-1].append(scores[-1] - _score(folds, shuffled, y))
    means, spread = np.mean(losses, axis=0), np.std(losses, axis=0)
    parameters: list[ParameterImportance] = [
        {"name": name, "mean": float(mean), "std": float(std)}
        for name, mean, std in zip(names, means, spread, strict=True)
    ]
    parameters.sort(key=lambda parameter: -parameter["mean"])
    return {
        "estimator": ESTIMATOR,
        "parameters": parameters,
        "score": float(np.mean(scores)),
        "variants": len(y),
    }


class _Forest(Protocol):
    """A fitted forest of scikit-learn."""

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return predictions."""


def _score(
    folds: Sequence[tuple[_Forest, NDArray[np.intp]]],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> float:
    """Return R² of the predictions of forests for the variants that they have not seen."""
    import numpy as np
    from sklearn.metrics import r2_score

    predicted = np.empty_like(y)
    for forest, test in folds:
        predicted[test] = forest.predict(x[test])
    return float(r2_score(y, predicted))


def _codes(values: Sequence[object]) -> list[float]:
    """Return values as numbers: if one is not a number, the rank of each among all."""
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        return numbers
    texts = sorted({str(value) for value in values})
    return [float(texts.index(str(value))) for value in values]


def main() -> int:
    """Read a request from stdin, and write the estimate to stdout."""
    request = json.load(sys.stdin)
    try:
        result = estimate(request["names"], request["choices"], request["metrics"])
    except ImportError:
        return NOT_INSTALLED
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
