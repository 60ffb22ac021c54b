"""Runs from the middle: they give what whole runs give, bit for bit, whatever the code does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from lit_compress.errors import ReplayError
from lit_compress.sensitivity.calls.replay import record, replay
from lit_compress.sensitivity.calls.structure import stored_bytes
from lit_compress.sensitivity.calls.watch import structure_of


class Inplace(nn.Module):
    """Values that are changed in place, alone and through views of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, f = self.layers
        x = a(x).relu_()
        y = b(x)
        y += x  # changed after it was read by nothing else
        z = c(y)
        part = y[:, :3]
        part.mul_(2)  # changes y too
        z = d(z) + y
        x.add_(1)  # changed long after it was made
        return f(e(z) + x).tanh_()


class Structures(nn.Module):
    """Tuples, numbers, a loop, a branch on a shape, a value that is an argument, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 6, 3, padding=1), nn.Conv1d(3, 6, 3)
        self.norm, self.last = nn.BatchNorm1d(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x.contiguous()))
        halves = x.chunk(2, dim=1)
        values, _ = torch.max(halves[0], dim=2, keepdim=True)
        total = halves[1]
        for _ in range(2):
            total = total + values
        size = total.shape[-1]
        x = self.second(total if size > 3 else total[:, :, :1])
        return self.last(x.mean(2) * (1 + x.size(0)))


def shuffle() -> nn.Module:
    return models.shufflenet_v2_x0_5(num_classes=4)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "inplace": (Inplace, (5, 6)),
    "structures": (Structures, (3, 2, 8)),
    "shufflenet": (shuffle, (2, 3, 32, 32)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_from_a_changed_layer_on_is_a_whole_run_bit_for_bit(name: str) -> None:
    make, shape = CASES[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(shape)

    def run() -> Tensor:
        return model(x)

    with torch.no_grad():
        plain = run()
    structure = structure_of(run)
    weights = [
        m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))
    ]
    cuts = [structure.cut([weight]) for weight in weights]
    assert cuts == sorted(cuts)
    assert cuts[-1] > cuts[0]
    recording = record(run, structure, cuts)
    for weight, cut in zip(weights[::3], cuts[::3], strict=True):
        for _ in range(2):  # what is kept is not used up
            assert torch.equal(replay(run, structure, recording, cut), plain)
        before = weight.detach().clone()
        with torch.no_grad():
            weight.mul_(0.5)
            whole = run()
        assert torch.equal(replay(run, structure, recording, cut), whole)
        assert not torch.equal(whole, plain)
        with torch.no_grad():
            weight.copy_(before)


def test_calls_before_the_cut_are_not_made() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.randn(2, 3)
    structure = structure_of(lambda: model(x))
    cut = structure.cut([model[2].weight])
    recording = record(lambda: model(x), structure, [cut])
    with torch.no_grad():
        expected = model(x)
        model[0].weight.fill_(float("nan"))
    assert torch.equal(replay(lambda: model(x), structure, recording, cut), expected)


def test_other_data_of_another_length_has_the_same_structure() -> None:
    model = shuffle().eval()
    x, other = torch.randn(3, 3, 32, 32), torch.randn(4, 3, 32, 32)
    structure = structure_of(lambda: model(other))
    cut = structure.cut([model.fc.weight])
    recording = record(lambda: model(x), structure, [cut])
    with torch.no_grad():
        assert torch.equal(replay(lambda: model(x), structure, recording, cut), model(x))


def test_only_what_crosses_a_cut_is_kept() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(20))).eval()
    x = torch.randn(4, 8)
    structure = structure_of(lambda: model(x))
    cut = structure.cut([model[10].weight])
    one = 4 * 8 * 4
    assert stored_bytes(structure, [cut]) == one
    recording = record(lambda: model(x), structure, [cut])
    assert sum(state.numel() * 4 for state in recording.states.values()) == one


def test_a_function_that_makes_other_calls_is_refused() -> None:
    calls = iter(["relu", "relu", "tanh"])

    def run() -> Tensor:
        return getattr(torch.ones(2), next(calls))()

    structure = structure_of(run)
    recording = record(run, structure, [2])
    with pytest.raises(ReplayError, match=r"is tanh, but was relu before"):
        replay(run, structure, recording, 2)


def test_nothing_that_changes_an_input_is_skipped() -> None:
    layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3)).eval()
    count = torch.zeros(())

    def run() -> Tensor:
        x = layers[1](layers[0](torch.ones(1, 3)))
        count.add_(1)
        return layers[2](x) * count

    structure = structure_of(run)
    cuts = [structure.cut([layer.weight]) for layer in layers]
    assert structure.first_change == cuts[2] < structure.uses[id(layers[2].weight)]
    recording = record(run, structure, cuts)
    for number, cut in enumerate(cuts, 3):
        out = replay(run, structure, recording, cut)
        assert int(count) == number
        count.sub_(1)
        assert torch.equal(out, run())
    assert structure_of(lambda: torch.ones(3) + 1).first_change is None


def test_a_value_that_was_not_kept_is_never_used() -> None:
    """Another branch after the cut took it, with calls of the same names: rubbish came out."""
    torch.manual_seed(0)
    a, b, c, d = (nn.Linear(2, 2) for _ in range(4))
    x = torch.ones(1, 2)

    def run() -> Tensor:
        one, two = a(x), b(x)
        mean = (one + two).mean()
        return d(one if c(x).sum() > 0 else two) + mean

    c.bias.data.fill_(9)
    structure = structure_of(run)
    cut = structure.cut([c.weight, c.bias])
    recording = record(run, structure, [cut])
    with torch.no_grad():
        assert torch.equal(replay(run, structure, recording, cut), run())
    c.bias.data.fill_(-9)
    with pytest.raises(ReplayError, match=r"a run from call \d+ on fails \(.*meta"):
        replay(run, structure, recording, cut)


class Remembering(nn.Module):
    """Its first layer leaves something behind, which is read later."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.c = Leaving(how), nn.Linear(2, 2), nn.Linear(2, 2)
        if how == "hook":
            self.a.register_forward_hook(lambda *given: self.a.kept.append(given[2]))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x))) + self.a.left()


class Leaving(nn.Linear):
    """Keeps its output, as a new attribute or in a list."""

    def __init__(self, how: str) -> None:
        super().__init__(2, 2)
        self.how = how
        self.kept: list[Tensor] = [torch.zeros(1, 2)]
        if how == "buffer":
            self.register_buffer("last", torch.zeros(1, 2))

    def left(self) -> Tensor:
        return self.last if self.how in ("new", "buffer") else self.kept[-1]

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if self.how == "new":
            self.last = out
        elif self.how == "list":
            self.kept.append(out * 1)
        elif self.how == "item":
            self.kept[:] = [out * 1]
        elif self.how == "buffer":
            self.last = out * 1
        return out


def test_layers_before_the_cut_are_passed_over() -> None:
    model, ran = shuffle().eval(), []
    x = torch.randn(2, 3, 32, 32)
    structure = structure_of(lambda: model(x))
    cut = structure.cut([model.fc.weight])
    recording = record(lambda: model(x), structure, [cut])
    with torch.no_grad():
        plain = model(x)
    for name, layer in model.named_modules():
        forward = layer.forward

        def counted(*args: Tensor, _name: str = name, _forward: Any = forward) -> Tensor:
            ran.append(_name)
            out: Tensor = _forward(*args)
            return out

        layer.forward = counted  # type: ignore[method-assign]
    assert torch.equal(replay(lambda: model(x), structure, recording, cut), plain)
    assert ran == ["", "fc"]
    assert all(m.forward.__name__ == "counted" for m in model.modules())  # and back in place


@pytest.mark.parametrize("how", ["new", "list", "item", "buffer", "hook"])
def test_a_layer_that_leaves_something_behind_is_not_passed_over(how: str) -> None:
    model, x, other = Remembering(how).eval(), torch.randn(1, 2), torch.randn(1, 2)
    structure = structure_of(lambda: model(x))
    cut = structure.cut([model.c.weight])
    assert cut > 0
    recording = record(lambda: model(x), structure, [cut])
    with torch.no_grad():
        expected = model(x)
        model(other)  # what is left behind now is of another run
    assert torch.equal(replay(lambda: model(x), structure, recording, cut), expected)


def test_two_uses_of_a_layer_give_each_its_own() -> None:
    layer, last, x = nn.Linear(2, 2), nn.Linear(2, 2), torch.randn(3, 2)

    def run() -> Tensor:
        once = layer(x)
        return last(once - layer(once))

    structure = structure_of(run)
    cut = structure.cut([last.weight])
    recording = record(run, structure, [1, 2, cut])
    with torch.no_grad():
        expected = run()
        assert torch.equal(replay(run, structure, recording, cut), expected)
        assert torch.equal(replay(run, structure, recording, 1), expected)
        layer.weight.mul_(2)
        whole = run()
        assert not torch.equal(replay(run, structure, recording, 1), whole)  # its first use is kept


def test_a_tensor_with_torch_functions_of_its_own_is_followed_to_the_end() -> None:
    class Loud(Tensor):
        """Doubles what is added to it."""

        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = super().__torch_function__(func, types, args, kwargs or {})
            return out * 2 if func is torch.add else out

    layer, x = nn.Linear(2, 2), torch.randn(3, 2)
    loud = torch.ones(2).as_subclass(Loud)

    def run() -> Tensor:
        return torch.add(loud, layer(x)) + 0

    structure = structure_of(run)
    assert structure.intercepted
    recording = record(run, structure, [1])
    with torch.no_grad():
        assert torch.equal(replay(run, structure, recording, 1), run())


def test_another_mode_is_followed_to_the_end() -> None:
    class Doubling(TorchFunctionMode):
        """Doubles what linear layers give."""

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            return out * 2 if func is torch.nn.functional.linear else out

    one, other, x = nn.Linear(2, 2), nn.Linear(2, 2), torch.randn(3, 2)

    def run() -> Tensor:
        with Doubling():
            out: Tensor = other(one(x))
        return out

    structure = structure_of(run)
    recording = record(run, structure, [1])
    with torch.no_grad():
        assert torch.equal(replay(run, structure, recording, 1), run())


class Lazy(nn.Module):
    """Now and then it makes no call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor, idle: bool = False) -> Tensor:
        return x if idle else self.layer(x)


def test_a_layer_that_makes_no_call_at_first_is_not_taken_for_one_that_does() -> None:
    first, last, x = Lazy(), nn.Linear(2, 2), torch.randn(3, 2)

    def run() -> Tensor:
        x_then = first(x, idle=True)
        return last(first(x_then)) + x_then

    structure = structure_of(run)
    cut = structure.cut([last.weight])
    recording = record(run, structure, [cut])
    with torch.no_grad():
        assert torch.equal(replay(run, structure, recording, cut), run())


@pytest.mark.parametrize(
    "step",
    [lambda y: y.split(4, 1)[0], lambda y: torch.cat(y.chunk(1, 1), 1), lambda y: y.unbind()[0]],
)
def test_a_container_of_one_tensor_stays_one(step: Callable[[Tensor], Tensor]) -> None:
    """The tensor itself was given, whose first row was then taken for it."""
    first, last, x = nn.Linear(3, 4), nn.Linear(4, 4), torch.randn(1, 3)

    def run() -> Tensor:
        return last(step(first(x)))

    structure = structure_of(run)
    cut = structure.cut([last.weight])
    recording = record(run, structure, [cut])
    with torch.no_grad():
        assert torch.equal(replay(run, structure, recording, cut), run())


def test_a_value_that_was_not_kept_is_never_returned() -> None:
    a, c, x = nn.Linear(2, 2), nn.Linear(2, 2), torch.ones(1, 2)

    def run() -> Tensor:
        one = a(x)
        two = one * 2
        return one if c(two).sum() < 0 else two

    c.bias.data.fill_(9)
    structure = structure_of(run)
    cut = structure.cut([c.weight])
    recording = record(run, structure, [cut])
    c.bias.data.fill_(-99)
    with pytest.raises(ReplayError, match="returns a tensor that was not kept"):
        replay(run, structure, recording, cut)
