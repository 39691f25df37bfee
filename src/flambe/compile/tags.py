"""From a tag to what it calls, and back.

Only declared tags are resolved: a class that was registered (a Component, a Runnable or another
Registrable, by being defined), the prefixes ``torch``, ``ray`` and ``tune``, and the modules of the
extension header. Built-in tags are data, so that knowing them imports nothing.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flambe.errors import did_you_mean, how_to_install, listed

T = TypeVar("T", bound=type[Any])

BUILT_IN: dict[str, str] = {
    "AWSCluster": "flambe.cluster:AWSCluster",
    "LocalCluster": "flambe.cluster:LocalCluster",
    "SSHCluster": "flambe.cluster:SSHCluster",
    "Experiment": "flambe.experiment:Experiment",
    "RemoteEnvironment": "flambe.runnable:RemoteEnvironment",
    "Evaluator": "flambe.learn:Evaluator",
    "Script": "flambe.learn:Script",
    "Trainer": "flambe.learn:Trainer",
    "SklearnDataset": "flambe.dataset:SklearnDataset",
    "TabularDataset": "flambe.dataset:TabularDataset",
    "CharTokenizer": "flambe.field:CharTokenizer",
    "LabelField": "flambe.field:LabelField",
    "NumberField": "flambe.field:NumberField",
    "TextField": "flambe.field:TextField",
    "WordTokenizer": "flambe.field:WordTokenizer",
    "BaseSampler": "flambe.sampler:BaseSampler",
    "AUC": "flambe.metric:AUC",
    "Accuracy": "flambe.metric:Accuracy",
    "F1": "flambe.metric:F1",
    "Loss": "flambe.metric:Loss",
    "Perplexity": "flambe.metric:Perplexity",
    "Precision": "flambe.metric:Precision",
    "Recall": "flambe.metric:Recall",
    "AttentionPooling": "flambe.nn:AttentionPooling",
    "Classifier": "flambe.nn:Classifier",
    "Embedder": "flambe.nn:Embedder",
    "Embeddings": "flambe.nn:Embeddings",
    "FirstPooling": "flambe.nn:FirstPooling",
    "LastPooling": "flambe.nn:LastPooling",
    "MLPEncoder": "flambe.nn:MLPEncoder",
    "MaxPooling": "flambe.nn:MaxPooling",
    "MeanPooling": "flambe.nn:MeanPooling",
    "RNNEncoder": "flambe.nn:RNNEncoder",
    "SoftmaxLayer": "flambe.nn:SoftmaxLayer",
    "TextClassifier": "flambe.nn:TextClassifier",
    "TransformerEncoder": "flambe.nn:TransformerEncoder",
}

# Where a prefix looks a name up, in order; each may be imported by checking a file that names it.
PREFIXES: dict[str, tuple[str, ...]] = {
    "torch": ("torch.nn", "torch.optim", "torch.optim.lr_scheduler"),
    "ray": (
        "ray.tune.schedulers",
        "ray.tune.schedulers.pb2",
        "ray.tune.search",
        "ray.tune.search.basic_variant",
        "ray.tune.search.optuna",
        "ray.tune.search.hyperopt",
        "ray.tune.search.ax",
        "ray.tune.search.bayesopt",
        "ray.tune.search.bohb",
        "ray.tune.search.hebo",
        "ray.tune.search.nevergrad",
        "ray.tune.search.zoopt",
        "ray.tune.stopper",
    ),
    "tune": ("ray.tune", "ray.tune.schedulers", "ray.tune.search"),
}

OPERATORS = ("@", "g", "s", "cluster")


class UnknownTagError(LookupError):
    """A tag leads nowhere.

    Attributes
    ----------
    hint
        What to write instead.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass
class _Registry:
    """Tags of the classes that were defined in this process."""

    classes: dict[str, list[type[Any]]] = field(default_factory=dict)

    def add(self, tag: str, cls: type[Any]) -> None:
        known = self.classes.setdefault(tag, [])
        # A class that is defined again (a notebook cell, a reloaded module) replaces the first.
        place = (cls.__module__, cls.__qualname__)
        known[:] = [other for other in known if (other.__module__, other.__qualname__) != place]
        known.append(cls)


_registry = _Registry()

#: The extensions that this process declared, and where each comes from. What is declared may be
#: imported and built; a name in a saved component alone gives no such right.
declared: dict[str, str] = {}
#: Where the extensions of all that was built come from: written above what is saved.
origins: dict[str, str] = {}


def declare(extensions: Mapping[str, str]) -> None:
    """Let tags reach these extensions, in this process and in the workers of its runs.

    Parameters
    ----------
    extensions
        Module → where it comes from.
    """
    declared.update(extensions)
    origins.update(extensions)


def register(cls: T, tag: str | None = None) -> T:
    """Make a class usable as a tag, its name by default."""
    _registry.add(tag or cls.__name__, cls)
    return cls


def alias(name: str) -> Callable[[T], T]:
    """Give a class another tag.

    Examples
    --------
    >>> @alias("mlp")
    ... class MultiLayerPerceptron(Component): ...
    """

    def decorate(cls: T) -> T:
        aliases = [*cls.__dict__.get("_flambe_aliases", ()), name]
        cls._flambe_aliases = aliases
        return register(cls, name)

    return decorate


def registrable_factory(method: Any) -> Any:
    """Mark a classmethod so that ``!Class.method`` calls it."""
    function: Any = method.__func__ if isinstance(method, classmethod) else method
    function._flambe_factory = True
    return method if isinstance(method, classmethod) else classmethod(method)


def factories(cls: type[Any]) -> list[str]:
    """Return the names of the factories of a class."""
    return [
        name
        for name, member in inspect.getmembers(cls, inspect.ismethod)
        if getattr(member, "_flambe_factory", False)
    ]


def import_path(target: Any) -> str:
    """Return ``"package.module:Class"`` or ``"package.module:Class.factory"``."""
    return f"{target.__module__}:{target.__qualname__}"


# Classes that no import finds again: those made inside a function.
_local: dict[str, Any] = {}


def import_target(path: str) -> Any:
    """Import what :func:`import_path` named."""
    if path in _local:
        return _local[path]
    module, _, name = path.partition(":")
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = getattr(target, part)
    return target


def tag_of(target: Any) -> str:
    """Return the tag that a class, or an object's class, is written with."""
    owner = getattr(target, "__self__", None)
    if inspect.isclass(owner):
        return f"{tag_of(owner)}.{target.__name__}"
    module: str = getattr(target, "__module__", "") or ""
    name: str = target.__qualname__
    top = module.partition(".")[0]
    aliases = getattr(target, "__dict__", {}).get("_flambe_aliases")
    if aliases:
        return str(aliases[-1])
    if top == "torch":
        return f"torch.{name}"
    if top == "ray":
        return f"ray.{name}"
    if top == "flambe" or target in _registry.classes.get(target.__name__, ()):
        return str(target.__name__)
    return f"{top}.{name}"


def resolve(
    tag: str, extensions: Collection[str] = (), undeclared: Collection[str] = ()
) -> tuple[str, Any]:
    """Find what a tag calls.

    Parameters
    ----------
    tag
        As written, without the ``!``.
    extensions
        The top-level modules of the extension header.
    undeclared
        Those of a saved component that its reader did not declare. Nothing of them is imported:
        only classes that were registered before, by an import of the reader's own, are reached.

    Returns
    -------
    tuple
        Where to import it from, and the class or function itself.

    Raises
    ------
    UnknownTagError
        If the tag is not declared, or leads nowhere.
    """
    head, _, rest = tag.partition(".")
    if tag.startswith("@"):
        raise UnknownTagError(f"unknown tag !{tag}", f"a link has a space:   !@ {tag[1:]}")
    if head in undeclared and rest:
        return _located(_registered_in(head, rest, tag))
    if head in extensions and rest:
        return _located(_in_extension(head, rest, tag))
    if head in PREFIXES and rest:
        return _located(_in_prefix(head, rest))
    if head in BUILT_IN:
        return _with_factory(import_target(BUILT_IN[head]), rest, tag)
    known = _registry.classes.get(head) or _registry.classes.get(tag)
    if known:
        if len(known) > 1:
            raise UnknownTagError(
                f"!{tag} is ambiguous: {', '.join(import_path(cls) for cls in known)}",
                "declare the extension, and write its module in front",
            )
        return _with_factory(known[0], rest if head in _registry.classes else "", tag)
    if rest and head.isidentifier():
        raise UnknownTagError(
            f"unknown tag !{tag}: {head!r} is not a declared extension",
            did_you_mean(tag, _candidates(extensions))
            or f"declare it above the first '---':  {head}: ./path/to/{head}",
        )
    raise UnknownTagError(
        f"unknown tag !{tag}",
        did_you_mean(tag, _candidates(extensions))
        or (_to_declare(undeclared) if undeclared else "")
        or f"known tags: {listed(sorted({*BUILT_IN, *_registry.classes}), 30)}",
    )


def _candidates(extensions: Collection[str]) -> Iterator[str]:
    yield from BUILT_IN
    yield from _registry.classes
    yield from OPERATORS
    for name in extensions:
        # Only what checking has imported already.
        module = sys.modules.get(name)
        yield from (f"{name}.{member}" for member in _offered(module)) if module else ()


def _public(module: Any) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]


def _offered(owner: Any) -> list[str]:
    """Return what a tag may name in a module of an extension, or in a class."""
    if inspect.isclass(owner):
        return factories(owner)
    top = owner.__name__.partition(".")[0]
    members = ((name, getattr(owner, name)) for name in _public(owner))
    found = [
        name
        for name, member in members
        if (inspect.isclass(member) or inspect.ismodule(member))
        and (getattr(member, "__module__", None) or member.__name__).partition(".")[0] == top
    ]
    # Modules that were not imported yet are there too.
    inside = pkgutil.iter_modules(getattr(owner, "__path__", ()))
    return [*found, *(one.name for one in inside if not one.name.startswith("_"))]


def locate(target: Any) -> str:
    """Return what :func:`import_target` finds a class or factory by, wherever it was defined."""
    path = import_path(target)
    try:
        found = import_target(path)
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is not target and getattr(found, "__func__", found) is not getattr(
        target, "__func__", target
    ):
        _local[path] = target
    return path


def _located(target: Any) -> tuple[str, Any]:
    return locate(target), target


def _with_factory(cls: Any, factory: str, tag: str) -> tuple[str, Any]:
    if not factory:
        return _located(cls)
    known = factories(cls)
    if factory not in known:
        raise UnknownTagError(
            f"unknown tag !{tag}: {cls.__name__} has no factory {factory!r}",
            did_you_mean(factory, known)
            or (f"its factories: {', '.join(known)}" if known else "it has no factories"),
        )
    return _located(getattr(cls, factory))


def _registered_in(name: str, rest: str, tag: str) -> Any:
    """Return a class that is registered already, or a factory of one; nothing is imported."""
    *modules, last = rest.split(".")
    if factory := _registered(name, modules[:-1], modules[-1]) if modules else None:
        return _with_factory(factory, last, tag)[1]
    if cls := _registered(name, modules, last):
        return cls
    raise UnknownTagError(
        f"!{tag} is of the extension {name!r}, which you have not declared", _to_declare([name])
    )


def _to_declare(names: Collection[str]) -> str:
    return f"if you trust it:   flambe.load(path, extensions={sorted(names)})"


def _registered(name: str, modules: list[str], tag: str) -> Any:
    """Return the registered class of an extension that has a tag; its module decides among many."""
    classes = [cls for cls in _registry.classes.get(tag, ()) if _defined_in(name, cls)]
    exact = [cls for cls in classes if cls.__module__ == ".".join((name, *modules))]
    return (exact or classes)[0] if len(exact or classes) == 1 else None


def _in_extension(name: str, rest: str, tag: str) -> Any:
    """Walk from the module of an extension to what a tag names in it.

    A tag reaches what the extension defines itself: what its modules import from elsewhere is not
    its own, and no tag leads to or through it.
    """
    target: Any = importlib.import_module(name)
    walked = name
    for part in rest.split("."):
        owner = target
        if not part or part.startswith("_"):
            target = None
        elif hasattr(target, part):
            target = getattr(target, part)
            if inspect.ismodule(target) and not _defined_in(name, target):
                target = None
        elif inspect.ismodule(target):
            target = _alias_in(owner, part) or _submodule(walked, part)
        else:
            target = None
        if target is None:
            raise UnknownTagError(
                f"unknown tag !{tag}: {walked} has no {part!r}",
                did_you_mean(part, _offered(owner)),
            )
        if inspect.ismodule(owner) and inspect.isclass(target) and not _defined_in(name, target):
            raise UnknownTagError(
                f"unknown tag !{tag}: {walked} imports {part!r} from elsewhere",
                f"a tag reaches what {name} defines: derive a class from it there",
            )
        if inspect.isclass(owner) and not getattr(target, "_flambe_factory", False):
            raise UnknownTagError(
                f"unknown tag !{tag}: {owner.__name__}.{part} is not marked @registrable_factory",
                did_you_mean(part, factories(owner)),
            )
        walked = f"{walked}.{part}"
    if inspect.isclass(target) or getattr(target, "_flambe_factory", False):
        return target
    raise UnknownTagError(f"!{tag} is not a class", "a tag names a class, or a factory of one")


def _alias_in(module: Any, name: str) -> Any:
    for cls in _registry.classes.get(name, ()):
        if cls.__module__.partition(".")[0] == module.__name__.partition(".")[0]:
            return cls
    return None


def _defined_in(name: str, target: Any) -> bool:
    """Whether a module, a class or a function is defined in a package."""
    module = target.__name__ if inspect.ismodule(target) else getattr(target, "__module__", None)
    return f"{module}.".startswith(f"{name}.")


def _submodule(package: str, name: str) -> Any:
    try:
        return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"{package}.{name}":
            return None
        raise


def _in_prefix(prefix: str, name: str) -> Any:
    # Both !torch.Linear and !torch.nn.Linear are understood.
    module_part, _, last = name.rpartition(".")
    missing: ImportError | None = None
    candidates: list[str] = []
    for module_name in PREFIXES[prefix]:
        if module_part and not module_name.endswith(f".{module_part}"):
            continue
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            missing = error
            if module_name.partition(".")[0] == error.name:
                break
            continue
        target = getattr(module, last, None) if last else None
        if not last.startswith("_") and _allowed(prefix, target):
            return target
        candidates += [
            f"{prefix}.{public}"
            for public in _public(module)
            if _allowed(prefix, getattr(module, public, None))
        ]
    if missing is not None and not candidates:
        raise UnknownTagError(
            f"!{prefix}.{name} needs the package {missing.name!r}, which is not installed",
            how_to_install("learn") if prefix == "torch" else f"pip install {missing.name}",
        )
    raise UnknownTagError(
        f"unknown tag !{prefix}.{name}",
        did_you_mean(f"{prefix}.{name}", candidates) or f"looked in {', '.join(PREFIXES[prefix])}",
    )


def _allowed(prefix: str, target: Any) -> bool:
    """Whether a prefix offers this: torch its classes, Ray what searches, schedules or samples."""
    module: str = getattr(target, "__module__", None) or ""
    if prefix == "torch":
        return inspect.isclass(target) and module.startswith("torch.")
    if inspect.isclass(target):
        return module.startswith(("ray.tune.schedulers", "ray.tune.search", "ray.tune.stopper"))
    return inspect.isfunction(target) and module == "ray.tune.search.sample"
