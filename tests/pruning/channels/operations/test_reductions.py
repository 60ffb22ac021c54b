from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_compress.pruning import ChannelGraph

Check = Callable[..., ChannelGraph]
Operation = Callable[[nn.Module, Tensor], Tensor]
PASS: dict[str, Operation] = {
    "mean over the image": lambda s, x: x.mean((2, 3)),
    "mean with keepdim": lambda s, x: x - x.mean(dim=(-1, -2), keepdim=True),
    "maximum in one dimension": lambda s, x: x.max(2)[0],
    "maximum of two": lambda s, x: torch.max(x, x.flip(3)),
    "variance over batch and image": lambda s, x: x / x.var((0, 2, 3), keepdim=True),
    "softmax over the image": lambda s, x: x.flatten(2).softmax(2),
    "norm over the image": lambda s, x: F.layer_norm(x, x.shape[2:]),
    "pool": lambda s, x: F.max_pool2d(F.avg_pool2d(x, 2, 1), 2),
    "pool with indices": lambda s, x: F.max_pool2d(x, 2, return_indices=True)[0],
    "adaptive pool": lambda s, x: F.adaptive_avg_pool2d(x, 2),
    "power pool": lambda s, x: F.lp_pool2d(x, 2.0, 2),
    "resize": lambda s, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "pad": lambda s, x: F.pad(x, (1, 1, 2, 0)),
    "unit vectors over the image": lambda s, x: F.normalize(x.flatten(2), dim=2),
}
FREEZE: dict[str, Operation] = {
    "mean over channels": lambda s, x: x - x.mean(1, keepdim=True),
    "mean over all": lambda s, x: x - x.mean(),
    "softmax over channels": lambda s, x: x.softmax(1),
    "norm over channels": lambda s, x: F.layer_norm(x, x.shape[1:]),
    "norm with channels last": lambda s, x: F.layer_norm(x.movedim(1, -1), (8,)),
    "unit vectors over channels": lambda s, x: F.normalize(x),
    "pad of channels": lambda s, x: F.pad(x, (0, 0, 0, 0, 1, 1)),
    "pool over channels": lambda s, x: F.max_pool1d(x.flatten(2).transpose(1, 2), 2),
    "sum of groups": lambda s, x: x.view(2, 2, 4, 4, 4).sum(1),
    "response norm": lambda s, x: F.local_response_norm(x, 3),
}


@pytest.mark.parametrize("operation", PASS.values(), ids=PASS.keys())
def test_channels_pass(between: Check, operation: Operation) -> None:
    assert len(between(operation).channels) == 8


@pytest.mark.parametrize("operation", FREEZE.values(), ids=FREEZE.keys())
def test_channels_freeze(between: Check, operation: Operation) -> None:
    assert not between(operation).channels


def test_gated_unit_ties_its_halves(between: Check) -> None:
    assert len(between(lambda s, x: F.glu(x, 1)).channels) == 4


def test_gated_unit_takes_the_last_dimension_where_none_is_given(between: Check) -> None:
    """The halves of the last dimension are tied, not those of the one before it."""
    assert len(between(lambda s, x: torch.ops.aten.glu(x.movedim(1, -1))).channels) == 4


def test_mean_over_an_empty_list_of_dimensions_is_one_over_all_and_named(between: Check) -> None:
    """If it were let pass, only a trial would find it, which cannot say where."""
    graph = between(lambda s, x: x - x.mean(dim=[]))
    assert {f.reason.op for f in graph.frozen if f.tensor == "first.weight"} == {"mean"}
