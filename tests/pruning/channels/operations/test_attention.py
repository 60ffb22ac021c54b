"""Whole heads of attentions are removed, and what is left computes the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.tracing.modules import named_tensors

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value)


def explicit(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return F.dropout(scores.softmax(-1), 0.1, False) @ value


def batched(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (part.flatten(0, 1) for part in (query, key, value))
    scores = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=query.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), v).unflatten(0, query.shape[:2])


def lettered(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = torch.einsum("bhid, bhjd -> bhij", query, key) * query.shape[-1] ** -0.5
    return torch.einsum("bhij,bhjd->bhid", [scores.softmax(-1), value])


def masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = torch.ones(query.shape[-2], key.shape[-2]).tril().bool()
    scores = (query @ key.transpose(-2, -1)).masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ value


def rotated(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    def turn(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        angle = torch.arange(x.shape[-2] * 1.0)[:, None]
        return x * angle.cos() + torch.cat((-second, first), -1) * angle.sin()

    return F.scaled_dot_product_attention(turn(query), turn(key), value)


WAYS = {f.__name__: f for f in (fused, explicit, batched, lettered, masked, rotated)}


class Attention(nn.Module):
    """Self-attention with four heads, whose queries, keys and values come from one layer."""

    def __init__(self, attend: Attend, width: int = 12) -> None:
        super().__init__()
        self.heads, self.attend = 4, attend
        self.qkv, self.proj = nn.Linear(5, 3 * width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        parts = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = self.attend(*parts.unbind(0))
        return self.proj(attended.transpose(1, 2).reshape(b, n, -1))


def without_heads(model: nn.Module, *inputs: Tensor, heads: int = 2) -> ChannelGraph:
    """Remove heads of each group; compare with zeros in what reads them."""
    model = model.double().eval()
    inputs = tuple(x.double() for x in inputs)
    graph = analyse(model, inputs)
    chosen = [n for g in graph.groups for n in g.channels[: min(heads, graph.removable(g))]]
    plan = make_plan(graph, chosen)
    own = named_tensors(model)
    held = {cut.tensor: own[cut.tensor].detach().clone() for cut in plan.cuts}
    with torch.no_grad():
        for cut in plan.cuts:
            if graph.roles[cut.tensor, cut.dim] == "input":
                gone = sorted(set(range(cut.size)) - set(cut.keep))
                own[cut.tensor].index_fill_(cut.dim, torch.tensor(gone), 0)
        expected = model(*inputs)
        for name, value in held.items():
            own[name].copy_(value)
        apply(plan, model)
        torch.testing.assert_close(model(*inputs), expected)
    return graph


@pytest.mark.parametrize("attend", WAYS.values(), ids=WAYS.keys())
def test_heads_go_however_the_attention_is_written(attend: Attend) -> None:
    """Attentions were frozen whole."""
    torch.manual_seed(0)
    width = 16 if attend is rotated else 12
    model = Attention(attend, width)
    graph = without_heads(model, torch.randn(2, 6, 5))
    assert [len(group.channels) for group in graph.groups] == [4]
    assert model.heads == 2
    assert tuple(model.qkv.weight.shape) == (3 * width // 2, 5)
    assert (model.proj.in_features, model.qkv.out_features) == (width // 2, 3 * width // 2)


class Separate(nn.Module):
    """Queries, keys and values from a layer each, fewer heads of keys than of queries."""

    def __init__(self, repeat: bool) -> None:
        super().__init__()
        self.repeat = repeat
        self.num_heads, self.kv_heads, self.head_dim = 8, 4, 3
        self.q, self.k, self.v = (nn.Linear(5, 3 * n) for n in (8, 4, 4))
        self.norm, self.o = nn.LayerNorm(3), nn.Linear(24, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n = x.shape[:2]
        q = self.norm(self.q(x).view(b, n, self.num_heads, self.head_dim)).transpose(1, 2)
        k = self.k(x).view(b, n, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        if self.repeat:
            k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=not self.repeat)
        return self.o(y.transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim))


class Flat(Separate):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o(y.transpose(1, 2).flatten(2))


def test_queries_go_with_the_head_of_keys_that_they_share() -> None:
    graph = without_heads(Flat(False), torch.randn(2, 6, 5))
    (group,) = graph.groups
    assert len(group.channels) == 4
    assert {key: len(graph.channel_of[key]) for key in group.keys} == {
        ("q.weight", 0): 24,
        ("q.bias", 0): 24,
        ("k.weight", 0): 12,
        ("k.bias", 0): 12,
        ("v.weight", 0): 12,
        ("v.bias", 0): 12,
        ("o.weight", 1): 24,
    }


@pytest.mark.parametrize("repeat", [True, False])
def test_attributes_become_smaller_with_the_heads(repeat: bool) -> None:
    model = Separate(repeat)
    (group,) = without_heads(model, torch.randn(2, 6, 5), heads=1).groups
    assert len(group.channels) == 4
    assert (model.num_heads, model.kv_heads, model.head_dim) == (6, 3, 3)


def test_a_width_that_is_written_as_a_number_stays_with_the_reason() -> None:
    class Fixed(Attention):
        def forward(self, x: Tensor) -> Tensor:
            parts = self.qkv(x).reshape(*x.shape[:2], 3, 4, -1).permute(2, 0, 3, 1, 4)
            attended = self.attend(*parts.unbind(0))
            return self.proj(attended.transpose(1, 2).reshape(*x.shape[:2], -1))

    graph = analyse(Fixed(fused).eval(), torch.randn(2, 6, 5))
    assert not graph.channels
    assert "needs its present width" in str(graph.frozen[0].reason)
    assert "reshape at test_attention.py" in str(graph.frozen[0].reason)


class Biased(nn.Module):
    """A bias for each head, looked up in a table by relative position, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Attention(self.attend)
        self.table = nn.Parameter(torch.randn(11, 4))
        self.register_buffer("index", (torch.arange(6)[:, None] - torch.arange(6)) + 5)
        self.fused = True

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        bias = self.table[self.index.view(-1)].view(6, 6, -1).permute(2, 0, 1).contiguous()
        if self.fused:
            return F.scaled_dot_product_attention(query, key, value, bias.unsqueeze(0))
        return ((query @ key.mT) + bias.unsqueeze(0)).softmax(-1) @ value

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize("is_fused", [True, False])
def test_a_bias_for_each_head_goes_with_it(is_fused: bool) -> None:
    model = Biased()
    model.fused = is_fused
    graph = without_heads(model, torch.randn(2, 6, 5))
    assert ("table", 1) in graph.channel_of
    assert tuple(model.table.shape) == (11, 2)


class Layer(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 4, **options)
        self.options = {"need_weights": True}

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        y = x if y is None else y
        return self.attention(x, y, y, **self.options)[0]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("crossed", [True, False])
def test_heads_of_torchs_attention_go(need_weights: bool, crossed: bool) -> None:
    """It was frozen: it derives the size of a head from the size of its input."""
    torch.manual_seed(0)
    model = Layer(batch_first=True)
    model.options["need_weights"] = need_weights
    inputs = [torch.randn(2, 6, 8), torch.randn(2, 3, 8)][: 1 + crossed]
    graph = without_heads(model, *inputs)
    assert [len(group.channels) for group in graph.groups] == [4]
    assert model.attention.num_heads == 2
    assert tuple(model.attention.in_proj_weight.shape) == (12, 8)
    assert tuple(model.attention.out_proj.weight.shape) == (8, 4)


def test_average_weights_that_are_an_output_keep_the_heads() -> None:
    class Shown(Layer):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            out, weights = self.attention(x, x, x)
            return out.sum() + weights

    graph = analyse(Shown().eval(), torch.randn(2, 6, 8))
    assert not graph.channels
    assert "average_over_heads" in "".join(str(part.reason) for part in graph.frozen)


@pytest.mark.parametrize("option", ["add_bias_kv", "add_zero_attn"])
def test_an_attention_with_further_keys_stays(option: str) -> None:
    graph = analyse(Layer(**{option: True}).eval(), torch.randn(2, 6, 8))
    assert not graph.channels
    assert "multi_head_attention_forward" in str(graph.frozen[0].reason)


def test_torchs_encoder_loses_heads_and_hidden_units() -> None:
    """In eval mode its fused path took the size of a head from the embedding."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 2))
    graph = without_heads(model, torch.randn(2, 5, 8))
    assert sorted(len(group.channels) for group in graph.groups) == [4, 4, 32, 32]
    assert "layer norm over all channels" in str(graph.frozen[0].reason)


def test_a_single_head_and_products_of_fixed_size_stay() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(5, 5) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            scores = self.q(x) @ self.k(x).transpose(1, 2)
            return self.o(scores.softmax(-1) @ self.v(x))

    graph = without_heads(Single(), torch.randn(2, 6, 5))
    assert {tensor for tensor, _ in graph.channel_of} == {"v.weight", "v.bias", "o.weight"}
    assert "is combined with others" not in str(graph.frozen)


def test_tokens_are_mixed_by_a_fixed_matrix() -> None:
    """A graph network: the adjacency is a constant, and channels pass."""

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.ones(6, 6).tril().to(x) @ self.a(x))

    assert len(without_heads(Graph(), torch.randn(2, 6, 5)).channels) == 8


class Rotary(Attention):
    """Turns queries and keys by a table, after a norm that is written out, as in Qwen3."""

    def __init__(self) -> None:
        super().__init__(self.turned, 16)
        self.register_buffer("cos", torch.rand(6, 4))
        self.scale = nn.Parameter(torch.rand(4) + 0.5)

    def turned(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        def turn(x: Tensor) -> Tensor:
            x = self.scale * (x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt())
            half = torch.cat((-x[..., 2:], x[..., :2]), -1)
            return x * self.cos + half * self.cos

        return F.scaled_dot_product_attention(turn(query), turn(key), value)


def test_fixed_values_for_each_index_of_a_head_leave_whole_heads() -> None:
    """Llama, Qwen and Gemma kept all heads."""
    model = Rotary()
    graph = without_heads(model, torch.randn(2, 6, 5))
    assert [len(group.channels) for group in graph.groups] == [4]
    assert (model.heads, tuple(model.cos.shape)) == (2, (6, 4))


class Looked(nn.Module):
    """A bias for each head from an embedding of distances, as in T5."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.table = Attention(self.attend), nn.Embedding(11, 4)
        self.register_buffer("index", (torch.arange(6)[:, None] - torch.arange(6)) + 5)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        bias = self.table(self.index).permute(2, 0, 1).unsqueeze(0)
        return ((query @ key.mT) + bias).softmax(-1) @ value

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_an_embedding_with_a_column_for_each_head_goes_with_it() -> None:
    model = Looked()
    without_heads(model, torch.randn(2, 6, 5))
    assert (model.table.embedding_dim, tuple(model.table.weight.shape)) == (2, (11, 2))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("padded", [True, False])
def test_an_encoder_runs_after_its_heads_went(padded: bool) -> None:
    """With a padding mask, its nested tensors took all heads, in eval mode alone."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    net = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(2, 5, 16)
    graph = analyse(net, x)
    plan = make_plan(graph, [n for g in graph.groups for n in g.channels[:2]])
    apply(plan, net)
    mask = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]).bool() if padded else None
    expected = net(x, src_key_padding_mask=mask)
    with torch.no_grad():
        found = net(x, src_key_padding_mask=mask)
    torch.testing.assert_close(found, expected)


def test_dropout_in_training_mode_draws_nothing_in_a_trial() -> None:
    """RoBERTa: a buffer that is never used led to a run in training mode, with other noise."""

    class Dropping(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(F.dropout(x, 0.5, self.training)), 0.5, self.training)

    model = Dropping(explicit)
    model.register_buffer("unused", torch.zeros(3))
    graph = without_heads(model, torch.randn(2, 6, 5))
    assert [len(group.channels) for group in graph.groups] == [4]
