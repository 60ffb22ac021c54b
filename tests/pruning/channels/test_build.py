import torch
from torch import Tensor, nn

from lit_compress.pruning.channels.build import UNSEEN, UNUSED, build
from lit_compress.pruning.channels.graph import ChannelGraph, Frozen, Key
from lit_compress.pruning.channels.operations import HANDLERS, unknown
from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.channels.tracing.trace import Trace


def graph_of(model: nn.Module, closed: dict[Key, Reason] | None = None) -> ChannelGraph:
    trace = Trace(model, HANDLERS, unknown)
    with torch.no_grad(), trace.watching():
        out = model(torch.zeros(2, 3, 4, 4))
    trace.freeze(out, Reason("is an output of the network"))
    return build(trace, closed or {})


class Dead(nn.Module):
    """Its second layer's output is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        self.two(x)
        return self.out(x)


def test_each_channel_is_in_a_group_or_frozen_with_a_reason() -> None:
    graph = graph_of(Dead())
    assert [group.name for group in graph.groups] == ["one"]
    assert len(graph.channels) == 4
    reasons = {frozen.tensor: frozen.reason for frozen in graph.frozen}
    assert reasons["two.weight"] == UNUSED
    assert reasons["out.weight"].why == "is an output of the network"


def test_channels_that_no_layer_makes_stay() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    graph = graph_of(model)
    assert ("0.weight", 0) not in graph.channel_of
    assert "0.weight" not in {frozen.tensor for frozen in graph.frozen}


def test_channels_that_are_removed_only_together_say_by_what() -> None:
    class Sum(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = self[0](x)
            return self[1](x.view(2, 4, 1, -1).transpose(1, 2).reshape(2, 1, -1))

    model = Sum(nn.Conv2d(3, 4, 1), nn.Conv1d(1, 2, 1))
    graph = graph_of(model)
    assert not graph.groups
    (found,) = (frozen for frozen in graph.frozen if frozen.tensor == "0.weight")
    assert "only be removed together" in found.reason.why
    assert found.reason.op == "conv1d"


def test_two_inputs_of_each_group_stay_with_the_reason() -> None:
    """A mutant of this reason was not noticed."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 2, 1))
    graph = graph_of(model)
    assert [group.name for group in graph.groups] == ["1"]
    (frozen,) = (frozen for frozen in graph.frozen if frozen.tensor == "0.weight")
    assert "the two that a grouped convolution or a norm must keep" in frozen.reason.why


def test_closed_tensors_stay_for_the_reason_given() -> None:
    why = Reason("was found to break on trial")
    graph = graph_of(Dead(), {("one.weight", 0): why})
    assert not graph.groups
    assert {f.reason for f in graph.frozen if f.tensor == "one.weight"} == {why}


def test_a_weight_that_no_call_uses_has_all_its_filters_frozen() -> None:
    """They are counted along dimension 0, where filters are."""
    model = Dead()
    model.idle = nn.Conv2d(3, 5, 1)
    found = [frozen for frozen in graph_of(model).frozen if frozen.tensor == "idle.weight"]
    assert found == [Frozen("idle.weight", 0, (0, 1, 2, 3, 4), UNSEEN)]


class Parts(nn.Module):
    """The last three channels of its first layer are added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.side, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.one(x) + torch.cat((self.side(x), x), 1))


def test_the_filters_that_stay_are_those_with_the_reason() -> None:
    """Five filters can go, and three cannot."""
    (frozen,) = (frozen for frozen in graph_of(Parts()).frozen if frozen.tensor == "one.weight")
    assert (frozen.dim, frozen.indices) == (0, (5, 6, 7))
