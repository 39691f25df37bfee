from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flambe.dataset import SklearnDataset
from flambe.metric import AUC, F1, Accuracy, Loss, Metric, Perplexity, Precision, Recall

_CLASSES = 4


class Theirs:
    """The metrics of scikit-learn, which takes a second to import: no process but this does."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest asks every object of a module for some
            raise AttributeError(name)
        from sklearn import metrics

        return getattr(metrics, name)


theirs = Theirs()


def counts(true: torch.Tensor, guess: torch.Tensor, *, average: str) -> dict[Any, float]:
    """Return what scikit-learn makes of predictions, in one call: each compares them anew."""
    figures = theirs.precision_recall_fscore_support(true, guess, average=average, zero_division=0)
    return dict(zip((Precision, Recall, F1), map(float, figures[:3]), strict=True))


@st.composite
def _batches(draw: st.DrawFn) -> list[tuple[torch.Tensor, torch.Tensor]]:
    n = draw(st.integers(1, 40))
    scores = draw(st.lists(st.integers(-3, 3), min_size=n * _CLASSES, max_size=n * _CLASSES))
    targets = draw(st.lists(st.integers(0, _CLASSES - 1), min_size=n, max_size=n))
    size = draw(st.integers(1, n))
    pred = torch.tensor(scores, dtype=torch.float32).view(n, _CLASSES)
    return list(zip(torch.split(pred, size), torch.split(torch.tensor(targets), size), strict=True))


def _over(metric: Metric, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    for pred, target in batches:
        metric.update(pred, target)
    return metric.compute()


def _joined(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    pred, target = zip(*batches, strict=True)
    return torch.cat(pred), torch.cat(target)


@given(_batches())
def test_accuracy(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    pred, target = _joined(batches)
    expected = theirs.accuracy_score(target, pred.argmax(1))
    assert _over(Accuracy(), batches) == pytest.approx(expected)
    one_hot = torch.nn.functional.one_hot(target, _CLASSES).float()
    assert Accuracy()(pred, one_hot) == pytest.approx(expected)


@given(_batches(), st.sampled_from(["macro", "micro", "weighted"]))
def test_counts(batches: list[tuple[torch.Tensor, torch.Tensor]], average: Any) -> None:
    pred, target = _joined(batches)
    expected = counts(target, pred.argmax(1), average=average)
    for ours, figure in expected.items():
        assert _over(ours(average), batches) == pytest.approx(figure)


@given(_batches())
def test_binary_counts(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    batches = [(torch.sigmoid(pred[:, 0]), (target > 1).long()) for pred, target in batches]
    pred, target = _joined(batches)
    expected = counts(target, pred >= 0.5, average="binary")
    for ours, figure in expected.items():
        assert _over(ours("binary"), batches) == pytest.approx(figure)


@given(_batches(), st.integers(0, _CLASSES - 1), st.integers(0, _CLASSES - 1))
def test_one_class_and_ignored_rows(
    batches: list[tuple[torch.Tensor, torch.Tensor]], positive: int, ignored: int
) -> None:
    pred, target = _joined(batches)
    left = target != ignored
    guess, true = pred.argmax(1)[left], target[left]
    expected = counts(target == positive, pred.argmax(1) == positive, average="binary")
    for ours, figure in expected.items():
        assert _over(ours("binary", positive), batches) == pytest.approx(figure)
    if len(true):
        for ours, figure in counts(true, guess, average="macro").items():
            assert _over(ours(ignore_index=ignored), batches) == pytest.approx(figure)


def test_the_formulas_of_the_documentation() -> None:
    guess, true = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 1, 2, 0])
    figures: dict[type[Metric], Any] = {
        Precision: lambda tp, fp, fn: tp / (tp + fp),
        Recall: lambda tp, fp, fn: tp / (tp + fn),
        F1: lambda tp, fp, fn: 2 * tp / (2 * tp + fp + fn),
    }
    for metric, formula in figures.items():
        counts = [
            (
                int(((guess == c) & (true == c)).sum()),
                int(((guess == c) & (true != c)).sum()),
                int(((guess != c) & (true == c)).sum()),
            )
            for c in range(3)
        ]
        by_class = [formula(*count) for count in counts]
        weights = [tp + fn for tp, _, fn in counts]
        expected = {
            "macro": sum(by_class) / 3,
            "weighted": sum(f * w for f, w in zip(by_class, weights, strict=True)) / sum(weights),
            "micro": formula(*map(sum, zip(*counts, strict=True))),
            "binary": by_class[1],
        }
        for average, value in expected.items():
            assert metric(average)(guess, true) == pytest.approx(value)  # type: ignore[call-arg]
        assert metric()(guess, true) == pytest.approx(expected["macro"])


@given(_batches())
def test_auc(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    pred, target = _joined(batches)
    binary = (target > 1).long()
    value = AUC()(pred[:, 0], binary)
    if len(torch.unique(binary)) < 2:
        assert math.isnan(value)
    else:
        expected = theirs.roc_auc_score(binary, pred[:, 0])
        assert value == pytest.approx(expected)
        two = torch.stack([torch.zeros(len(pred)), pred[:, 0]], 1)
        assert AUC()(two, binary) == pytest.approx(expected)
    if len(torch.unique(target)) == _CLASSES:
        probabilities = pred.double().softmax(1)
        expected = theirs.roc_auc_score(target, probabilities.numpy(), multi_class="ovr")
        assert _over(AUC(), batches) == pytest.approx(expected)
        assert AUC(normalize=False)(probabilities, target) == pytest.approx(expected)


@given(_batches(), st.booleans(), st.sampled_from([-100, 2]))
def test_loss_is_exact_over_batches(
    batches: list[tuple[torch.Tensor, torch.Tensor]], weighted: bool, ignored: int
) -> None:
    pred, target = _joined(batches)
    weight = torch.tensor([1.0, 2.0, 0.5, 4.0]) if weighted else None
    loss = torch.nn.CrossEntropyLoss(weight, ignore_index=ignored)
    value = _over(Loss(loss), batches)
    expected = float(loss(pred, target))
    assert value == pytest.approx(expected, rel=1e-5, nan_ok=True)
    assert loss.reduction == "mean"
    means = Loss(torch.nn.MSELoss())
    targets = torch.nn.functional.one_hot(target, _CLASSES).float()
    value = _over(means, list(zip(torch.split(pred, 3), torch.split(targets, 3), strict=True)))
    assert value == pytest.approx(float(torch.nn.MSELoss()(pred, targets)), rel=1e-5)


@given(_batches())
def test_perplexity(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    pred, target = _joined(batches)
    expected = math.exp(
        theirs.log_loss(target, pred.double().softmax(1).numpy(), labels=list(range(_CLASSES)))
    )
    assert _over(Perplexity(), batches) == pytest.approx(expected, rel=1e-4)
    logs = [(pred.log_softmax(-1), target) for pred, target in batches]
    assert _over(Perplexity(), logs) == pytest.approx(expected, rel=1e-4)


def test_padding_is_ignored() -> None:
    target = torch.tensor([[1, 2, 0], [3, 0, 0]])
    pred = torch.nn.functional.one_hot(torch.tensor([[1, 1, 3], [3, 3, 3]]), 4).float()
    assert Accuracy(ignore_index=0)(pred, target) == pytest.approx(2 / 3)
    # Precision of class 1 is 1/2, of 2 is 0, of 3 is 1.
    assert Precision(ignore_index=0)(pred, target) == pytest.approx(0.5)
    exact = pred.flatten(0, 1)[target.flatten() != 0]
    value = Perplexity(ignore_index=0)(pred, target)
    assert value == pytest.approx(Perplexity()(exact, target[target != 0]))


def test_a_real_classifier() -> None:
    from sklearn.linear_model import LogisticRegression

    data = SklearnDataset("digits")
    (x, y), (x_test, y_test) = data.train.columns, data.test.columns  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(max_iter=200).fit(x.numpy(), y.numpy())
    scores = model.predict_log_proba(x_test.numpy())
    pred = torch.from_numpy(scores)
    guess = scores.argmax(1)
    assert Accuracy()(pred, y_test) == pytest.approx(theirs.accuracy_score(y_test, guess))
    assert F1()(pred, y_test) == pytest.approx(theirs.f1_score(y_test, guess, average="macro"))
    area = theirs.roc_auc_score(y_test, np.exp(scores), multi_class="ovr")
    assert AUC()(pred, y_test) == pytest.approx(area)
    loss = Loss(torch.nn.NLLLoss())
    assert loss(pred, y_test) == pytest.approx(theirs.log_loss(y_test, np.exp(scores)))


@pytest.mark.parametrize(
    "metric",
    [Accuracy(), F1(), Precision(), Recall(), AUC(), Loss(torch.nn.MSELoss()), Perplexity()],
)
def test_of_nothing_is_not_defined(metric: Metric) -> None:
    assert math.isnan(metric.compute())


def test_reset_forgets_and_score_ranks() -> None:
    metric = Accuracy()
    metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    metric.reset()
    metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert metric.compute() == 1.0
    assert metric.score(0.5) == 0.5
    assert Perplexity().score(3.0) == -3.0


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\) do not fit targets of shape \(2,\)"):
        Accuracy()(torch.zeros(3), torch.zeros(2))
