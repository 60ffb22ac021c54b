"""The blocks of a network, against the same network whose branches are zero."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18, shufflenet_v2_x0_5

from lit_compress.errors import ChannelError
from lit_compress.measure import cost
from lit_compress.pruning.blocks.analysis import find_blocks
from lit_compress.pruning.blocks.surgery import remove_blocks
from pruning.blocks.nets import Basic, Nested, PreNorm, T, X, images, relu_of, tokens, zeroed


def without(net: nn.Module, x: Any, *names: str) -> nn.Module:
    """Return a copy without some blocks, each found in what is left."""
    made = copy.deepcopy(net)
    for name in names:
        remove_blocks(made, find_blocks(made, x).blocks[name].kinds)
    return made


def test_the_blocks_of_resnet18_are_those_of_equal_shape() -> None:
    net = resnet18(num_classes=4).eval()
    graph = find_blocks(net, torch.zeros(2, 3, 32, 32))
    assert list(graph.blocks) == ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert {name: why.partition(" of")[0] for name, why in graph.kept.items()} == {
        f"layer{n}.0": "changes the shape" for n in (2, 3, 4)
    }
    # Its input comes from a max pool of a ReLU, so that no activation has to stay.
    assert graph.blocks["layer1.0"].kinds == {"layer1.0": "identity"}


def test_costs_are_those_that_go() -> None:
    net = images(Basic(4), Basic(4))
    graph = find_blocks(net, X)
    small = without(net, X, "2")
    block = graph.blocks["2"]
    assert block.parameters == cost(net, X).parameters - cost(small, X).parameters > 0
    assert block.macs == cost(net, X).macs - cost(small, X).macs > 0
    assert block.nodes == 3  # two convolutions and a sum; the norm and the activations are folded
    assert graph.macs == cost(net, X).macs


def test_mobilenet_loses_its_inverted_residuals() -> None:
    net = mobilenet_v2(num_classes=4).eval()
    x = torch.randn(2, 3, 32, 32)
    graph = find_blocks(net, x)
    assert len(graph.blocks) == 10
    names = list(graph.blocks)[::2]
    lasts = [f"{name}.conv.3" for name in names]  # the norm that ends a branch
    torch.testing.assert_close(without(net, x, *names)(x), zeroed(net, lasts)(x))


def test_an_activation_stays_where_the_input_may_be_negative() -> None:
    positive, signed = images(Basic(4)), images(Basic(4), first=nn.Tanh())
    assert find_blocks(positive, X).blocks["2"].kinds == {"2": "identity"}
    assert find_blocks(signed, X).blocks["2"].kinds == {"2": "relu"}
    for net in (positive, signed):
        torch.testing.assert_close(without(net, X, "2")(X), zeroed(net, ["2.last"])(X))


def test_nested_blocks_go_one_by_one_or_together() -> None:
    net = images(Nested(4), Basic(4))
    graph = find_blocks(net, X)
    assert set(graph.blocks) == {"2", "2.inner", "3"}
    inner = without(net, X, "2.inner")
    torch.testing.assert_close(inner(X), zeroed(net, ["2.inner.last"])(X))
    both = without(inner, X, "2")
    torch.testing.assert_close(both(X), zeroed(net, ["2.last"])(X))
    assert graph.saved(["2", "2.inner"], "parameters") == graph.blocks["2"].parameters


def test_the_branches_of_a_transformer_go_alone_and_their_layer_at_last() -> None:
    net = tokens()
    graph = find_blocks(net, T)
    assert list(graph.blocks) == ["1.mlp", "1.attention", "2.mlp", "2.attention"]
    half = without(net, T, "1.attention")
    torch.testing.assert_close(half(T), zeroed(net, ["1.attention.out_proj"])(T))
    assert not list(half.get_submodule("1.attention").parameters())
    assert not list(half.get_submodule("1.norm1").parameters())
    whole = without(half, T, "1.mlp")
    assert whole.get_submodule("1").kind == "identity"
    lasts = ["1.attention.out_proj", "1.mlp.2"]
    torch.testing.assert_close(whole(T), zeroed(net, lasts)(T))


class Loose(nn.Module):
    """Its forward adds branches of its own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.two(relu_of(self.one(x)))
        return self.head(x)


def test_a_branch_of_the_network_itself_goes() -> None:
    net = Loose().eval()
    graph = find_blocks(net, T)
    assert {name: dict(block.kinds) for name, block in graph.blocks.items()} == {
        "two": {"one": "identity", "two": "zero"}
    }
    torch.testing.assert_close(without(net, T, "two")(T), zeroed(net, ["two"])(T))


def test_post_norm_branches_go_and_their_norm_stays() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 2)).eval()
    assert not find_blocks(net, T).kept  # both of its branches can go
    small = without(net, T, "1.self_attn")
    torch.testing.assert_close(small(T), zeroed(net, ["1.self_attn.out_proj"])(T))
    assert isinstance(small.get_submodule("1.norm1"), nn.LayerNorm)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_torchs_own_layers_lose_any_branch(norm_first: bool, fused: bool) -> None:
    """Its fused path, which a validation takes, reads the weights of all parts."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    net = nn.Sequential(nn.Linear(5, 8), encoder, nn.Linear(8, 2)).eval()
    lasts = {"self_attn": "self_attn.out_proj", "linear2": "linear2"}
    names = [f"1.layers.{number}.{part}" for number in (0, 1) for part in lasts]
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fused)
    try:
        for gone in ([name] for name in names):
            ends = [name.replace("self_attn", lasts["self_attn"]) for name in gone]
            with torch.no_grad():
                small, expected = without(net, T, *gone), zeroed(net, ends)
                torch.testing.assert_close(small(T), expected(T))
        with torch.no_grad():
            ends = [name.replace("self_attn", lasts["self_attn"]) for name in names]
            torch.testing.assert_close(without(net, T, *names)(T), zeroed(net, ends)(T))
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class Caching(Basic):
    """Computes a table in its first call in eval mode, and keeps it."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if "bias" not in self.cache:
            self.cache["bias"] = torch.arange(4.0).reshape(4, 1, 1) * self.bn.bias.mean()
        return x + self.last(self.a(x) + self.cache["bias"])


def test_a_network_that_keeps_what_it_computed_makes_the_same_calls() -> None:
    """Its second run has fewer calls, and the sums were looked for at the wrong numbers."""
    net = images(Caching(4), Caching(4))
    for part in net[2:4]:
        part.cache.clear()
    assert list(find_blocks(net, X).blocks) == ["2", "3"]
    assert not net[2].cache


class Tupled(PreNorm):
    """As a layer of a language model: a tuple, and attributes that the code around it reads."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.kind = "full"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor]:  # type: ignore[override]
        return (x + self.mlp(self.norm2(x if mask is None else x * mask)),)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 8), nn.Linear(8, 2)
        self.layers = nn.ModuleList([Tupled(8), Tupled(8)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x, None if layer.kind == "full" else x)[0]
        return self.head(x)


def test_a_layer_that_returns_a_tuple_goes() -> None:
    torch.manual_seed(0)
    net = Model().eval()
    graph = find_blocks(net, T)
    assert {name: dict(block.kinds) for name, block in graph.blocks.items()} == {
        f"layers.{number}": {f"layers.{number}": "identity:1"} for number in (0, 1)
    }
    small = without(net, T, "layers.0")
    torch.testing.assert_close(small(T), zeroed(net, ["layers.0.mlp.2"])(T))


def test_joined_branches_are_named() -> None:
    graph = find_blocks(shufflenet_v2_x0_5(num_classes=4).eval(), torch.zeros(2, 3, 32, 32))
    assert not graph.blocks
    assert graph.kept["stage2.1"].startswith("joins its branches, and does not add them (cat")


def test_only_asked_for_blocks_are_found() -> None:
    graph = find_blocks(images(Basic(4), Basic(4)), X, only=["3"])
    assert list(graph.blocks) == ["3"]


def test_the_network_is_not_changed() -> None:
    net = images(Basic(4), Nested(4)).train()
    before, text = copy.deepcopy(net.state_dict()), str(net)
    state = torch.get_rng_state()
    find_blocks(net, X)
    assert str(net) == text
    assert all(module.training for module in net.modules())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_a_part_is_analysed_by_its_name() -> None:
    net = nn.ModuleDict({"body": images(Basic(4))})
    graph = find_blocks(net, X, "body")
    assert list(graph.blocks) == ["body.2"]


def test_what_fails_or_returns_nothing_is_refused() -> None:
    with pytest.raises(ChannelError, match="forward of Sequential fails on the example inputs"):
        find_blocks(images(Basic(4)), torch.zeros(1, 3, 8, 8))

    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    with pytest.raises(ChannelError, match="returns no tensor"):
        find_blocks(Nothing(), X)


KINDS = {
    "basic": lambda: Basic(4),
    "plain": lambda: Basic(4, act=False),
    "nested": lambda: Nested(4),
    "wide": lambda: Basic(4, 4),
    "conv": lambda: nn.Conv2d(4, 4, 1),
}


@settings(max_examples=25)
@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5),
    signed=st.booleans(),
    data=st.data(),
)
def test_any_blocks_go_as_if_their_branches_were_zero(
    kinds: list[str], signed: bool, data: Any
) -> None:
    net = images(*(KINDS[kind]() for kind in kinds), first=nn.Tanh() if signed else None)
    found = list(find_blocks(net, X).blocks)
    assert {name.partition(".")[0] for name in found} == {
        str(number + 2) for number, kind in enumerate(kinds) if kind != "conv"
    }
    gone = data.draw(st.lists(st.sampled_from(found), unique=True)) if found else []
    made = copy.deepcopy(net)
    for name in gone:
        left = find_blocks(made, X).blocks
        if name in left:  # it may have gone with a block around it
            remove_blocks(made, left[name].kinds)
    torch.testing.assert_close(made(X), zeroed(net, [f"{name}.last" for name in gone])(X))


@settings(max_examples=10)
@given(data=st.data())
def test_any_branches_of_a_transformer_go(data: Any) -> None:
    net = tokens()
    ends = {"attention": "attention.out_proj", "mlp": "mlp.2"}
    names = [f"{number}.{part}" for number in (1, 2) for part in ends]
    gone = data.draw(st.lists(st.sampled_from(names), unique=True))
    lasts = [f"{name[0]}.{ends[name[2:]]}" for name in gone]
    torch.testing.assert_close(without(net, T, *gone)(T), zeroed(net, lasts)(T))


def test_prenorm_layers_train_without_their_branches() -> None:
    net = without(tokens(), T, "1.attention", "2.mlp").train()
    net(T).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert isinstance(net.get_submodule("1"), PreNorm)
