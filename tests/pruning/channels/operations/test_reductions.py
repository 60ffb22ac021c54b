from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_compress.pruning import ChannelGraph, analyse, apply, make_plan, restrict
from lit_compress.pruning.channels.analysis import verify

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


class Stream(nn.Module):
    """A residual stream under norms over all its channels."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.start, self.norm = nn.Linear(3, 8), norm
        self.up, self.down, self.end = nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        x = x + self.down(self.up(self.norm(x)).relu())
        return self.end(self.norm(x))


class Written(nn.Module):
    """A norm that is written out: RMS norm, or the response norm of ConvNeXt V2."""

    def __init__(self, response: bool) -> None:
        super().__init__()
        self.response = response
        self.weight = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.response:
            size = x.norm(p=2, dim=1, keepdim=True)
            return self.weight * (x * (size / (size.mean(dim=-1, keepdim=True) + 1e-6))) + x
        return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()


NORMS = {
    "layer norm": lambda: nn.LayerNorm(8),
    "without weights": lambda: nn.LayerNorm(8, elementwise_affine=False),
    "rms norm": lambda: nn.RMSNorm(8),
    "written": lambda: Written(False),
    "response": lambda: Written(True),
}


@torch.no_grad()
@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS.keys())
def test_channels_under_a_norm_over_all_go_where_that_is_allowed(
    make: Callable[[], nn.Module],
) -> None:
    """The narrow network is what one builds with the weights that are left."""
    torch.manual_seed(0)
    net, x = Stream(make()).double().eval(), torch.randn(2, 5, 3).double()
    assert {g.name for g in analyse(net, x).groups} == {"up"}
    graph = analyse(net, x, norm="approximate")
    (group,) = (g for g in graph.groups if g.name == "start")
    kept = list(range(1, 8, 2))
    plan = make_plan(graph, [group.channels[i] for i in range(0, 8, 2)])
    state = {name: value.clone() for name, value in net.state_dict().items()}
    apply(plan, net)
    by_hand = Stream(make()).double()
    by_hand.start, by_hand.up = nn.Linear(3, 4), nn.Linear(4, 6)
    by_hand.down, by_hand.end = nn.Linear(6, 4), nn.Linear(4, 2)
    if isinstance(by_hand.norm, Written):
        by_hand.norm.weight = nn.Parameter(torch.empty(4))
    else:
        affine = getattr(by_hand.norm, "elementwise_affine", True)
        by_hand.norm = type(by_hand.norm)(4, elementwise_affine=affine)
    dims = {"start.weight": 0, "start.bias": 0, "up.weight": 1, "end.weight": 1}
    dims |= {"down.weight": 0, "down.bias": 0, "norm.weight": 0, "norm.bias": 0}
    by_hand.double().load_state_dict(
        {
            n: v.index_select(dims[n], torch.tensor(kept)) if n in dims else v
            for n, v in state.items()
        }
    )
    torch.testing.assert_close(net(x), by_hand(x))
    assert ChannelGraph.from_dict(graph.to_dict()).approximate
    verify(net, x, restrict(graph, plan), make_plan(restrict(graph, plan), [group.channels[1]]))
