"""The state of components: what belongs to it, and where it fits."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest
import torch

from flambe.compile import Component
from flambe.compile.persistence import VersionWarning
from flambe.compile.state.component_state import components, same
from flambe.compile.state.encoding import Encoder, decode
from flambe.errors import StateError
from flambe.nn import Module


class StateCounter(Component):
    def __init__(self, start: int = 0) -> None:
        self.steps = start
        self.best: Any = None
        self.passing = "not kept"
        self.register_attrs("steps", "best")
        self.register_attrs("steps")


class StateLayer(Module):
    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(size))
        self.register_parameter("bias", None)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("cache", torch.zeros(size), persistent=False)
        self.uses = 0
        self.register_attrs("uses")


class StateModel(Module):
    def __init__(self, encoder: Any = None, size: int = 2) -> None:
        super().__init__()
        self.encoder = encoder
        self.linear = torch.nn.Linear(size, 1)
        self.own = torch.nn.Parameter(torch.zeros(1))


class StateTree(Component):
    def __init__(self, model: Any = None, others: Any = (), named: Any = None) -> None:
        self.model = model
        self.others = others
        self.named = named or {}
        self.again = model
        self._hidden = StateCounter(99)


class StateTrainer(Component):
    def __init__(self, model: StateLayer) -> None:
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1)


class StateHooked(Component):
    def __init__(self, values: Any = ()) -> None:
        self.values = set(values)

    def _state(self, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "values": sorted(self.values)}

    def _load_state(self, values: dict[str, Any]) -> dict[str, Any]:
        self.values = set(values.pop("values"))
        return values


class StateContainer(Module):
    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([StateLayer(size), torch.nn.Linear(size, size)])
        self.table = torch.nn.ModuleDict({"a": torch.nn.Sequential(StateLayer(size))})


class StatePlainContainer(Component):
    def __init__(self) -> None:
        self.network = torch.nn.Sequential(torch.nn.Linear(2, 2), StateLayer())


def checked(values: Any, where: str) -> Any:
    return {name: decode(Encoder(where).encode(v, name)) for name, v in values.items()}


def fill(module: Any, value: float) -> None:
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.fill_(value)


def test_registered_attributes_are_the_state() -> None:
    counter = StateCounter()
    counter.steps, counter.best, counter.passing = 3, {"loss": [1.0, (2, None)]}, "changed"
    state = counter.get_state()
    assert state == {"": {"steps": 3, "best": {"loss": [1.0, (2, None)]}}}
    other = StateCounter()
    other.load_state(state)
    assert (other.steps, other.best, other.passing) == (3, counter.best, "not kept")


def test_parameters_and_buffers_of_a_module() -> None:
    layer = StateLayer()
    fill(layer, 3)
    layer.uses = 4
    state = layer.get_state()
    assert set(state[""]) == {"weight", "mean", "uses"}
    other = StateLayer()
    weight = other.weight
    other.load_state(state)
    assert same(other.get_state(), state)
    assert other.weight is weight  # an optimizer holds it
    assert other.weight.requires_grad
    assert other.get_buffer("cache").sum() == 0


def test_each_component_has_a_state_of_its_own() -> None:
    model = StateModel(StateLayer())
    fill(model, 2)
    state = model.get_state()
    assert list(state) == ["", "encoder"]
    assert set(state[""]) == {"own", "linear"}
    other = StateModel(StateLayer())
    other.load_state(state)
    assert all((p == 2).all() for p in other.parameters())


def test_optimizers_and_schedulers() -> None:
    trainer = StateTrainer(StateLayer())
    trainer.model.weight.sum().backward()  # type: ignore[no-untyped-call]
    trainer.optimizer.step()
    trainer.scheduler.step()
    state = trainer.get_state()
    assert set(state[""]) == {"optimizer", "scheduler"}
    other = StateTrainer(StateLayer())
    other.load_state(state)
    assert same(other.get_state(), state)
    assert other.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    other.model.weight.grad = torch.ones(2)
    trainer.model.weight.grad = torch.ones(2)
    trainer.optimizer.step()
    other.optimizer.step()
    assert torch.equal(other.model.weight, trainer.model.weight)


def test_components_in_lists_and_mappings() -> None:
    tree = StateTree(None, [StateCounter(1), 5, StateCounter(2)], {"a": StateCounter(3), "b": 1})
    state = tree.get_state()
    assert list(state) == ["", "others/0", "others/2", "named/a"]
    other = StateTree(None, (StateCounter(), 5, StateCounter()), {"a": StateCounter(), "b": 1})
    other.load_state(state)
    assert [other.others[0].steps, other.others[2].steps, other.named["a"].steps] == [1, 2, 3]


def test_what_is_held_twice_is_kept_once() -> None:
    counter = StateCounter(1)
    tree = StateTree(counter, [counter], {"a": StateTree(counter)})
    assert list(tree.get_state()) == ["", "model", "named/a"]
    counter.again = tree  # type: ignore[attr-defined]  # a circle
    assert [path for path, _ in components(tree)] == ["", "model", "named/a"]


def test_hooks_change_what_is_saved_and_loaded() -> None:
    state = StateHooked([3, 1, 2]).get_state()
    assert state == {"": {"values": [1, 2, 3]}}
    other = StateHooked()
    other.load_state(state)
    assert other.values == {1, 2, 3}


@pytest.mark.parametrize("make", [StateContainer, StatePlainContainer])
def test_components_in_modules_of_torch(make: Any) -> None:
    def layers(root: Any) -> list[StateLayer]:
        return [found for _, found in components(root) if isinstance(found, StateLayer)]

    one, other = make(), make()
    for number, layer in enumerate(layers(one), start=1):
        fill(layer, number)
        layer.uses = number
    state = one.get_state()
    other.load_state(state)
    assert same(other.get_state(), state)
    assert [layer.uses for layer in layers(other)] == [layer.uses for layer in layers(one)]
    assert [layer.uses for layer in layers(other)][:1] == [1]
    # Nothing is kept twice.
    kept = [name for values in state.values() for name in flat(values) if name.endswith("mean")]
    assert len(kept) == len(layers(one))
    del state[""][next(iter(state[""]))]
    with pytest.raises(StateError, match="is missing"):
        other.load_state(state)


def flat(values: dict[str, Any]) -> list[str]:
    return [n for k, v in values.items() for n in (flat(v) if isinstance(v, dict) else [str(k)])]


# -- exact fit ----------------------------------------------------------------------------------


def test_every_difference_is_named() -> None:
    state = StateTree(StateLayer(), [StateCounter(), StateCounter()]).get_state()
    state["model"]["weight"] = torch.zeros(3)
    state["model"]["mean"] = 3
    state["model"]["more"] = 1
    del state["others/0"]["best"]
    del state["others/1"]
    state["others/2"] = {}
    with pytest.raises(StateError) as raised:
        StateTree(StateLayer(), [StateCounter(), StateCounter()]).load_state(state)
    assert str(raised.value) == (
        "the state does not fit StateTree: no component at 'others/2', "
        "no state for the component at 'others/1', model: 'weight' has shape (3,), not (2,), "
        "model: 'mean' is not a tensor, model: 'more' is not known, others/0: 'best' is missing\n"
        "  was the class or its configuration changed since it was saved?"
    )


def test_a_state_of_another_module_is_named() -> None:
    state = StateModel(StateLayer(), size=3).get_state()
    with pytest.raises(StateError, match="size mismatch for weight"):
        StateModel(StateLayer()).load_state(state)
    state[""]["linear"] = 3
    with pytest.raises(StateError, match=r"itself: 'linear': "):
        StateModel(StateLayer()).load_state(state)


def test_a_state_of_another_optimizer_is_named() -> None:
    state = StateTrainer(StateLayer()).get_state()
    wrongs: tuple[Any, ...] = (3, {}, {"state": {}, "param_groups": []})
    for wrong in wrongs:
        state[""]["optimizer"] = wrong
        with pytest.raises(StateError, match=r"itself: 'optimizer': "):
            StateTrainer(StateLayer()).load_state(state)


def test_a_parameter_that_is_none_now() -> None:
    layer = StateLayer()
    state = layer.get_state()
    state[""]["bias"] = torch.zeros(2)
    with pytest.raises(StateError, match="'bias' is not known"):
        layer.load_state(state)


# -- what can be kept without pickle ------------------------------------------------------------


class Colour(enum.IntEnum):
    GREY = 1


class Tagged(str):
    pass


class TensorOfOurs(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "value",
    [
        *(object(), lambda: 0, np.array([{}]), StateCounter, np.dtype("int8"), len),
        *(Colour.GREY, Tagged("x"), torch.nn.Linear(1, 1), np.ma.zeros(2), iter([1])),
        torch.zeros(2).as_subclass(TensorOfOurs),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_need_pickle_is_refused_and_named(value: Any) -> None:
    kind = type(value)
    for name, nested in {"best": value, "best[1]": [0, value], "best['a']": {"a": value}}.items():
        with pytest.raises(StateError) as raised:
            checked({"best": nested}, "StateCounter at 'model'")
        assert str(raised.value).startswith(
            f"cannot save StateCounter at 'model': its {name!r} is a {kind.__module__}."
        )


@pytest.mark.parametrize("key", [(1, Tagged("x")), Colour.GREY, object()])
def test_keys_that_would_need_pickle_are_refused(key: Any) -> None:
    with pytest.raises(StateError, match="a key of best.* is a"):
        checked({"best": {key: 1}}, "StateCounter")


def test_what_is_kept() -> None:
    values = {
        "best": [None, True, 1, 10**30, 1.5, float("inf"), "text", (1, [2]), {}],
        "table": {1: "a", None: 2, 1.5: 3, False: 4},
        "torch": [torch.float32, torch.device("cpu"), torch.Size([1, 2])],
    }
    assert checked(values, "x") == values
    parameter = torch.nn.Parameter(torch.ones(2))
    assert type(checked({"best": parameter}, "x")["best"]) is torch.Tensor


def test_equality_of_states() -> None:
    assert same({"a": [torch.ones(2), 1]}, {"a": (torch.ones(2), 1)})
    assert not same(torch.ones(2), torch.zeros(2))
    assert not same(torch.ones(2), 1)
    assert not same({"a": 1}, {"b": 1})
    assert not same([1], [1, 2])


def test_the_warning_is_one_that_can_be_told_apart() -> None:
    assert issubclass(VersionWarning, UserWarning)
