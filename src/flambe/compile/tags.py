"""From a tag to what it calls.

Only declared tags are resolved: a class that was registered (a Component, a Runnable or another
Registrable, by being defined), the prefixes ``torch``, ``ray`` and ``tune``, and the modules of the
extension header. Built-in tags are data, so that knowing them imports nothing.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Collection, Iterator
from types import ModuleType

from flambe.compile.registry import CLASSES, factories, import_path, is_factory
from flambe.errors import did_you_mean, how_to_install, listed

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

# The packages of flambe[learn].
LEARNING = {"torch", "sklearn", "pandas"}

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

OPERATORS = ("@", "g", "s", "cluster", "env", "include")


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


def resolve(
    tag: str, extensions: Collection[str] = (), undeclared: Collection[str] = ()
) -> tuple[str, object]:
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
        return _located(_member(_built_in(head), rest, tag))
    if classes := CLASSES.tagged(head) or CLASSES.tagged(tag):
        if len(classes) > 1:
            raise UnknownTagError(
                f"!{tag} is ambiguous: {', '.join(import_path(cls) for cls in classes)}",
                "declare the extension, and put its module in front",
            )
        return _located(_member(classes[0], rest if CLASSES.tagged(head) else "", tag))
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
        or f"known tags: {listed(sorted({*BUILT_IN, *CLASSES.by_tag}), 30)}",
    )


def _candidates(extensions: Collection[str]) -> Iterator[str]:
    yield from BUILT_IN
    yield from CLASSES.by_tag
    yield from OPERATORS
    for name in extensions:
        # Only what checking has imported already.
        module = sys.modules.get(name)
        yield from (f"{name}.{member}" for member in _offered(module)) if module else ()


def _built_in(tag: str) -> type[object]:
    cls = CLASSES.import_target(BUILT_IN[tag])
    assert isinstance(cls, type)
    return cls


def _public(module: ModuleType) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]


def _offered(owner: object) -> list[str]:
    """Return what a tag may name in a module of an extension, or in a class."""
    if inspect.isclass(owner):
        return factories(owner)
    if not inspect.ismodule(owner):
        return []
    package = owner.__name__.partition(".")[0]
    loaded = [name for name in _public(owner) if _package_of(getattr(owner, name)) == package]
    # A tag may name modules that were not imported yet, too.
    modules = pkgutil.iter_modules(getattr(owner, "__path__", ()))
    return [*loaded, *(module.name for module in modules if not module.name.startswith("_"))]


def _package_of(target: object) -> str:
    """Return the package that defines a class or a module; nothing for other objects."""
    if inspect.ismodule(target):
        return target.__name__.partition(".")[0]
    return (target.__module__ or "").partition(".")[0] if inspect.isclass(target) else ""


def _located(target: object) -> tuple[str, object]:
    return CLASSES.locate(target), target


def _member(cls: type[object], factory: str, tag: str) -> object:
    """Return a class, or one of its factories if it is named."""
    if not factory:
        return cls
    names = factories(cls)
    if factory not in names:
        raise UnknownTagError(
            f"unknown tag !{tag}: {cls.__name__} has no factory {factory!r}",
            did_you_mean(factory, names)
            or (f"its factories: {', '.join(names)}" if names else "it has no factories"),
        )
    method: object = getattr(cls, factory)
    return method


def _registered_in(name: str, rest: str, tag: str) -> object:
    """Return a class that is registered already, or a factory of one; nothing is imported."""
    *modules, last = rest.split(".")
    if cls := _registered(name, modules[:-1], modules[-1]) if modules else None:
        return _member(cls, last, tag)
    if cls := _registered(name, modules, last):
        return cls
    raise UnknownTagError(
        f"!{tag} belongs to the extension {name!r}, which you have not declared",
        _to_declare([name]),
    )


def _to_declare(names: Collection[str]) -> str:
    return f"if you trust it:   flambe.load(path, extensions={sorted(names)})"


def _registered(name: str, modules: list[str], tag: str) -> type[object] | None:
    """Return the registered class of an extension that has a tag; its module decides among many."""
    classes = [cls for cls in CLASSES.tagged(tag) if _defined_in(name, cls)]
    exact = [cls for cls in classes if cls.__module__ == ".".join((name, *modules))]
    return (exact or classes)[0] if len(exact or classes) == 1 else None


def _in_extension(name: str, rest: str, tag: str) -> object:
    """Walk from the module of an extension to what a tag names in it.

    A tag reaches what the extension defines itself: what its modules import from elsewhere is not
    its own, and no tag leads to or through it.
    """
    target: object = importlib.import_module(name)
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
            target = _alias_in(target, part) or _submodule(walked, part)
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
                f"tags reach only what {name} defines: derive a class from it there",
            )
        if inspect.isclass(owner) and not is_factory(target):
            raise UnknownTagError(
                f"unknown tag !{tag}: {owner.__name__}.{part} is not marked @registrable_factory",
                did_you_mean(part, factories(owner)),
            )
        walked = f"{walked}.{part}"
    if inspect.isclass(target) or is_factory(target):
        return target
    raise UnknownTagError(f"!{tag} is not a class", "a tag names a class, or a factory of one")


def _alias_in(module: ModuleType, name: str) -> type[object] | None:
    for cls in CLASSES.tagged(name):
        if cls.__module__.partition(".")[0] == module.__name__.partition(".")[0]:
            return cls
    return None


def _defined_in(name: str, target: object) -> bool:
    """Whether a module, a class or a function is defined in a package."""
    module = target.__name__ if inspect.ismodule(target) else getattr(target, "__module__", None)
    return f"{module}.".startswith(f"{name}.")


def _submodule(package: str, name: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"{package}.{name}":
            return None
        raise


def missing_package(tag: str, module: str) -> UnknownTagError:
    """Return the error of a tag whose class needs a package that is not installed.

    Parameters
    ----------
    tag
        The tag.
    module
        The module that could not be imported.
    """
    package = module.partition(".")[0]
    hint = how_to_install("learn") if package in LEARNING else f"pip install {package}"
    return UnknownTagError(f"!{tag} needs the package {package!r}, which is not installed", hint)


def _in_prefix(prefix: str, name: str) -> object:
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
        target: object = getattr(module, last, None) if last else None
        if not last.startswith("_") and _allowed(prefix, target):
            return target
        candidates += [
            f"{prefix}.{public}"
            for public in _public(module)
            if _allowed(prefix, getattr(module, public, None))
        ]
    if missing is not None and not candidates:
        raise missing_package(f"{prefix}.{name}", missing.name or prefix)
    raise UnknownTagError(
        f"unknown tag !{prefix}.{name}",
        did_you_mean(f"{prefix}.{name}", candidates) or f"looked in {', '.join(PREFIXES[prefix])}",
    )


def _allowed(prefix: str, target: object) -> bool:
    """Whether a prefix offers this: torch its classes, Ray what searches, schedules or samples."""
    module: str = getattr(target, "__module__", None) or ""
    if prefix == "torch":
        return inspect.isclass(target) and module.startswith("torch.")
    if inspect.isclass(target):
        return module.startswith(("ray.tune.schedulers", "ray.tune.search", "ray.tune.stopper"))
    return inspect.isfunction(target) and module == "ray.tune.search.sample"
