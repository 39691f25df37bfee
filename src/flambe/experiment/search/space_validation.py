"""Mistakes in the search spaces of a pipeline, found before anything is drawn from them.

Ray's functions accept most bounds, and raise when they draw: during the run, or not at all. A
searcher may support fewer kinds of spaces than Ray: its own translation is tried.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TypeGuard

from flambe.compile import Schema, search_spaces, signatures
from flambe.compile.values import Path, links, walk
from flambe.experiment.search.engine_packages import missing_packages
from flambe.experiment.search.engine_types import SEARCHER, derives_from
from flambe.experiment.variants.dimensions import options_of
from flambe.experiment.variants.options import domains, has_options

Finding = tuple[Path, str, str]  # path, message, hint


def space_findings(values: Mapping[str, object]) -> Iterator[Finding]:
    """Yield the mistakes in the search spaces of an experiment.

    Parameters
    ----------
    values
        The keywords of an ``!Experiment``, not built.
    """
    pipeline = values.get("pipeline")
    if not isinstance(pipeline, Mapping):
        return
    for stage, value in pipeline.items():
        sound = []
        for path, space in walk(value, ("pipeline", stage)):
            if search_spaces.is_space(space):
                mistakes = list(_space_findings(path, space))
                yield from mistakes
                sound += [] if mistakes else [(path, space)]
        search = values.get("search")
        searcher = search.get(stage) if isinstance(search, Mapping) else None
        searcher = searcher.get("searcher") if isinstance(searcher, Mapping) else searcher
        if isinstance(searcher, Schema) and searcher.target:
            yield from _unsearchable(_innermost(searcher), sound)
            if _has_bases(pipeline, stage):
                # Which of them is one more dimension of the search.
                options = Schema(search_spaces.CHOICE, "tune.choice", [["a", "b"]])
                hint = "take another searcher, or write one experiment for each option"
                for _, message, _ in _unsearchable(_innermost(searcher), [((), options)]):
                    options_text = f"the options (!g) of stage {stage!r}"
                    yield ("search", stage), message.replace("!tune.choice", options_text), hint


def _space_findings(path: Path, space: Schema) -> Iterator[Finding]:
    signature = signatures.signature(space.resolve())
    try:
        bound = signature.bind(*space.args, **space.kwargs) if signature is not None else None
    except TypeError:  # missing keywords are reported elsewhere
        return
    if bound is None:
        return
    bound.apply_defaults()
    names = list(bound.arguments)
    places: dict[str, Path] = {
        name: (*path, name if name in space.kwargs else names.index(name)) for name in names
    }
    values = {name: v for name, v in bound.arguments.items() if v is not inspect.Parameter.empty}
    if search_spaces.categories(space) == ((0,), []) or values.get("categories") == []:
        yield path, f"!{space.tag} has nothing to choose from", "expected   !tune.choice [a, b]"
    for name in ("lower", "upper", "mean", "sd", "q", "base"):
        value = values.get(name)
        if isinstance(value, float) and not math.isfinite(value):
            yield places[name], f"{name} of !{space.tag} cannot be {value}", "a finite number"
            return
    numbers = {name: v for name, v in values.items() if _is_number(v)}
    for name, message, hint in _number_findings(space, numbers):
        yield places[name], message, hint


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_findings(space: Schema, numbers: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    """Yield the argument, the message and the hint for each mistake in the numbers of a space."""
    tag, kind = f"!{space.tag}", search_spaces.kind(space)
    for name, least in (("sd", 0), ("q", 0), ("base", 1)):
        if name in numbers and numbers[name] <= least:
            yield name, f"{name} of {tag} cannot be {numbers[name]}", f"more than {least}"
            return
    if not {"lower", "upper"} <= numbers.keys():
        return
    lower, upper = numbers["lower"], numbers["upper"]
    if lower > upper:
        yield "lower", f"the bounds of {tag} are reversed: {lower} > {upper}", "the lower one first"
    elif "log" in kind and lower <= 0:
        smallest, linear = (
            (1, "randint") if search_spaces.draws_whole(space) else ("1e-5", "uniform")
        )
        yield (
            "lower",
            f"{tag} draws numbers above 0, of each magnitude alike, and its lower bound is {lower}",
            f"such as {smallest}; with 0 among them: !tune.{linear}",
        )
    elif search_spaces.draws_whole(space):
        yield from _whole_findings(tag, lower, upper, numbers.get("q", 1))
    elif "q" in numbers:
        q = numbers["q"]
        for name, bound in (("lower", lower), ("upper", upper)):
            if not math.isclose(bound / q, round(bound / q)):
                below, above = math.floor(bound / q) * q, math.ceil(bound / q) * q
                message = f"{name} of {tag} is {bound}, which is not a multiple of q, {q}"
                yield name, message, f"{below:g} or {above:g}"
                return


def _whole_findings(
    tag: str, lower: float, upper: float, q: float
) -> Iterator[tuple[str, str, str]]:
    if q == 1:
        if lower == upper:
            message = f"{tag} draws whole numbers from {lower} to below {upper}: there are none"
            yield "upper", message, f"at least {upper + 1}"
    elif math.floor(upper / q) < math.ceil(lower / q):
        message = f"{tag} draws multiples of {q}, and there is none from {lower} to {upper}"
        yield "q", message, "at most the upper bound"


def _has_bases(pipeline: Mapping[str, object], stage: str) -> bool:
    """Whether a stage or an ancestor has options, or an ancestor has search spaces."""
    seen, ahead = set(), [stage]
    while ahead:
        name = ahead.pop()
        seen.add(name)
        if has_options(pipeline[name]) or (name != stage and domains(pipeline[name])):
            return True
        roots = {link.root for _, link in links(pipeline[name])}
        ahead += [root for root in roots if root in pipeline and root not in seen]
    return False


# -- searchers ----------------------------------------------------------------------------------


def _innermost(searcher: Schema) -> Schema:
    """Return the searcher that proposes values; others are wrapped around it."""
    inner = searcher.kwargs.get("searcher", searcher.args[0] if searcher.args else None)
    if isinstance(inner, Schema) and inner.target and derives_from(inner.resolve(), SEARCHER):
        return _innermost(inner)
    return searcher


def _unsearchable(searcher: Schema, written: list[tuple[Path, Schema]]) -> Iterator[Finding]:
    """Yield the spaces that a searcher cannot search, or would search only in part."""
    target = searcher.resolve()
    translate = getattr(target, "convert_search_space", None)
    if translate is None or not derives_from(target, SEARCHER) or missing_packages(target):
        return
    for path, space in written:
        if options := options_of(space):  # it is searched by labels, and what is in it by itself
            space = Schema(space.target, space.tag, [list(options)])  # noqa: PLW2901
        if text := _refusal(translate, space):
            hint = "take another searcher, or none: then values are drawn at random"
            yield path, f"!{searcher.tag} cannot search !{space.tag}: {text}", hint


def _refusal(translate: Callable[[dict[str, object]], object], space: Schema) -> str:
    """Return why a searcher cannot search a space as it is written, or nothing if it can."""
    with _warnings_of(translate) as logged, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how values would be stored
        try:
            translate({"x": space()})
        except Exception as error:  # a user's searcher may raise anything
            return " ".join(str(error).split()) or type(error).__name__
    return logged[-1] if logged else ""


@contextlib.contextmanager
def _warnings_of(function: Callable[..., object]) -> Iterator[list[str]]:
    """Collect what the module of a function logs as warnings: what a searcher will not search."""
    logger = logging.getLogger(function.__module__)
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    # The result must not depend on what the user's loggers drop.
    propagate, disabled, level = logger.propagate, logger.disabled, logger.level
    threshold = logging.root.manager.disable
    logger.addHandler(handler)
    logger.propagate = logger.disabled = False
    logger.setLevel(logging.WARNING)
    logging.disable(logging.NOTSET)
    try:
        yield messages
    finally:
        logging.disable(threshold)
        logger.setLevel(level)
        logger.removeHandler(handler)
        logger.propagate, logger.disabled = propagate, disabled
