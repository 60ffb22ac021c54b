from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lit_compress.pruning.blocks.flow import ModuleCall
from lit_compress.pruning.blocks.sums import Chain, chain_of, is_positive, is_sum, kind_of
from lit_compress.pruning.channels.tracing.labels import Reason
from pruning.blocks.test_flow import followed


class Made(nn.Module):
    def __init__(self, forward: Callable[[nn.Module, Tensor], object], shape: int = 3) -> None:
        super().__init__()
        self.f, self.own = nn.Linear(3, shape), forward

    def forward(self, x: Tensor) -> object:
        return self.own(self.f, x)


class Around(nn.Module):
    def __init__(self, block: nn.Module, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.block, self.before = block, before

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(self.before(x))
        return (out[0] if isinstance(out, tuple) else out) * 1.0


def chain(
    forward: Callable[[nn.Module, Tensor], object],
    before: Callable[[Tensor], Tensor] = torch.tanh,
    shape: int = 3,
) -> tuple[Chain | Reason, str]:
    """Return the way through a block, and what stands in its place."""
    flow = followed(Around(Made(forward, shape), before), torch.ones(2, 3))
    (call,) = [call for call in flow.modules if call.name == "block"]
    found = chain_of(flow, call)
    return found, str(kind_of(flow, call, found)) if isinstance(found, Chain) else ""


relu = functional.relu


@pytest.mark.parametrize(
    ("forward", "before", "adds", "kind"),
    [
        (lambda f, x: x + f(x), torch.tanh, 1, "identity"),
        (lambda f, x: f(x) + x, torch.tanh, 1, "identity"),
        (lambda f, x: torch.add(x, f(x)), torch.tanh, 1, "identity"),
        (lambda f, x: f(x).add_(x), torch.tanh, 1, "identity"),
        (lambda f, x: relu(x + f(x)), torch.tanh, 1, "relu"),
        (lambda f, x: relu(x + f(x)), relu, 1, "identity"),
        (lambda f, x: relu(x + f(x)), torch.sigmoid, 1, "identity"),
        (lambda f, x: relu(relu(x + f(x)) + f(x)), torch.tanh, 2, "relu"),
        (lambda f, x: functional.relu6(x + f(x)), torch.tanh, 1, "relu6"),
        (lambda f, x: functional.relu6(x + f(x)), functional.relu6, 1, "identity"),
        (lambda f, x: functional.relu6(x + f(x)), relu, 1, "relu6"),
        (lambda f, x: nn.ReLU6()(x + f(x)), torch.tanh, 1, "relu6"),
        (lambda f, x: functional.gelu(x + f(x)), relu, 1, "gelu"),
        (lambda f, x: functional.dropout(x + f(x), 0.5, False), torch.tanh, 1, "identity"),
        (lambda f, x: (x + f(x), None), torch.tanh, 1, "identity:2"),
        (lambda f, x: x + 2 * f(x), torch.tanh, 1, "identity"),
    ],
)
def test_what_stands_in_the_place_of_a_block(
    forward: Callable[[nn.Module, Tensor], object],
    before: Callable[[Tensor], Tensor],
    adds: int,
    kind: str,
) -> None:
    found, what = chain(forward, before)
    assert isinstance(found, Chain), found
    assert (len(found.adds), what) == (adds, kind)


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (lambda f, x: f(x), "changes the sum .*linear"),
        (lambda f, x: x, "adds no branch"),
        (lambda f, x: 2 * x + f(x), "none of them is its input"),
        (lambda f, x: x + x, "adds its input twice"),
        (lambda f, x: torch.add(x, f(x), alpha=2), "changes the sum"),
        (lambda f, x: functional.layer_norm(x + f(x), (3,)), "changes the sum .*layer_norm"),
        (lambda f, x: (x + f(x)) * 0.5, "changes the sum .*mul"),
        (lambda f, x: functional.leaky_relu(x + f(x)), "changes the sum .*leaky_relu"),
        (lambda f, x: functional.gelu(x + f(x), approximate="tanh"), "changes the sum"),
        (lambda f, x: functional.hardtanh(x + f(x)), "changes the sum"),
        (lambda f, x: (x + f(x), x), "returns more than one tensor"),
        (lambda f, x: (x + f(x), "text"), "returns something else than a tensor"),
    ],
)
def test_what_is_no_block_says_why(
    forward: Callable[[nn.Module, Tensor], object], why: str
) -> None:
    found, _ = chain(forward)
    assert isinstance(found, Reason)
    assert re.search(why, str(found)), str(found)


def test_a_change_of_shape_is_said() -> None:
    found, _ = chain(lambda f, x: f(x), shape=5)
    assert str(found) == "changes the shape of its input from (2, 3) to (2, 5)"


def test_several_activations_are_said() -> None:
    _, why = chain(lambda f, x: functional.silu(relu(x + f(x)) + f(x)))
    assert why.startswith("applies several activations")
    _, why = chain(lambda f, x: functional.silu(functional.silu(x + f(x)) + f(x)))
    assert why.startswith("applies several activations")


def test_a_block_without_a_tensor_is_no_block() -> None:
    call = ModuleCall("block", nn.Identity(), 0, 0)
    assert "takes no tensor" in str(chain_of(followed(nn.Identity(), torch.ones(1)), call))


@pytest.mark.parametrize(
    ("before", "positive"),
    [
        (relu, True),
        (torch.tanh, False),
        (lambda x: functional.max_pool1d(relu(x)[None], 2, 1, 1)[0], False),
        (lambda x: functional.dropout(relu(x), 0.1, False), True),
        (lambda x: relu(x) + torch.sigmoid(x), True),
        (lambda x: relu(x) + x, False),
        (lambda x: functional.hardtanh(x, 0.0, 6.0), True),
    ],
)
def test_what_is_nowhere_below_zero(before: Callable[[Tensor], Tensor], positive: bool) -> None:
    flow = followed(Around(nn.Identity(), before), torch.ones(2, 3))
    (call,) = [call for call in flow.modules if call.name == "block"]
    assert is_positive(flow, call.given) == positive
    assert not any(is_sum(one) for one in flow.calls if one.name == "mul")
