"""The arguments that ZOOpt and Nevergrad need, as a file has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from flambe.compile import Schema, signatures
from flambe.compile.values import Path
from flambe.errors import did_you_mean
from flambe.experiment.search.engine_types import NEVERGRAD, SEARCHER, ZOOPT, derives_from

Finding = tuple[Path, str, str]  # path, message, hint

#: Nevergrad's own choice among its optimizers, by the kind of the search.
OPTIMIZER = "NGOpt"
#: The least budget of ZOOpt: zoopt.parameter.Parameter.auto_set.
FEWEST_OF_ZOOPT = 3


def argument_findings(
    target: object, written: Mapping[str, tuple[Path, object]]
) -> Iterator[Finding]:
    """Yield what ZOOpt or Nevergrad do not take: an optimizer that there is not, a small budget.

    Parameters
    ----------
    target
        The class of a searcher, whose package is installed.
    written
        Its arguments, each with its path below the searcher.
    """
    path, name = written.get("optimizer", ((), None))
    if derives_from(target, NEVERGRAD) and isinstance(name, str):
        from nevergrad import optimizers

        if name not in optimizers.registry:
            hint = did_you_mean(name, optimizers.registry) or "such as OnePlusOne, CMA or PSO"
            yield path, f"Nevergrad has no optimizer {name!r}", hint
    path, budget = written.get("budget", ((), None))
    if derives_from(target, ZOOPT) and isinstance(budget, int) and budget < FEWEST_OF_ZOOPT:
        # It would end the process.
        hint = f"{FEWEST_OF_ZOOPT} or more; by default num_samples of the stage"
        yield path, f"ZOOpt needs a larger budget than {budget}", hint


def with_defaults(searcher: Schema, num_samples: int) -> Schema:
    """Return a searcher with what it, or one inside it, does not work without.

    ZOOpt and Nevergrad plan for a number of points: ``num_samples``, unless the file has another
    budget.

    Parameters
    ----------
    searcher
        Its blueprint.
    num_samples
        How many points are tried.
    """
    target = searcher.resolve()
    signature = signatures.signature(target)
    parameters = signature.parameters.values() if signature is not None else ()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    positional = dict(zip(names, searcher.args, strict=False))
    arguments = {
        name: with_defaults(value, num_samples)
        if isinstance(value, Schema) and value.target and derives_from(value.resolve(), SEARCHER)
        else value
        for name, value in {**positional, **searcher.kwargs}.items()
    }
    if derives_from(target, ZOOPT):
        arguments.setdefault("budget", max(num_samples, FEWEST_OF_ZOOPT))
    elif derives_from(target, NEVERGRAD):
        from nevergrad import optimizers

        name = arguments.get("optimizer", OPTIMIZER)
        arguments["optimizer"] = optimizers.registry[name] if isinstance(name, str) else name
        options = arguments.get("optimizer_kwargs") or {}
        if isinstance(options, Mapping):
            arguments["optimizer_kwargs"] = {"budget": num_samples, **options}
    return replace(searcher, args=searcher.args[len(positional) :], kwargs=arguments)
