import copy
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from math import ceil
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.swin_transformer import SwinTransformer

from lit_compress.measure import cost
from lit_compress.pruning import ChannelGraph, analyse, apply, make_plan
from lit_compress.pruning.selection.budget import Budget, Limits, Selection, count_saved, select

SHARES = st.decimals("0", "0.99", places=2).map(lambda d: Fraction(str(d)))
NONE: frozenset[int] = frozenset()


class Net(nn.Module):
    """Layers of 7, 12 and 20 channels of their own, and one of 9 pairs, tied by a product."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 7, 1)
        self.b = nn.Conv2d(7, 12, 1)
        self.c = nn.Conv2d(12, 20, 3, padding=1)
        self.d = nn.Linear(20, 18)
        self.head = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.b(self.a(x).relu()).relu()).relu().mean((2, 3))
        left, right = self.d(x).chunk(2, 1)
        return self.head(left * right.sigmoid())


@cache
def example() -> tuple[Net, ChannelGraph, frozenset[str]]:
    torch.manual_seed(0)
    net = Net()
    graph = analyse(net, torch.randn(1, 3, 4, 4))
    return net, graph, frozenset(name for name, _ in net.named_parameters())


def scores_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(example()[1].channel_count)


def choose(
    share: Fraction,
    scores: np.ndarray,
    of: Any = "filters",
    scope: Any = "local",
    selected: frozenset[int] = NONE,
    limits: Limits | None = None,
    groups: tuple[int, ...] | None = None,
    up: bool = False,
) -> Selection:
    net, graph, names = example()
    groups = tuple(range(len(graph.groups))) if groups is None else groups
    channels = [number for index in groups for number in graph.groups[index].channels]
    spent = cost(net, torch.zeros(1, 3, 4, 4))
    budget = Budget(spent.parameters, spent.macs, int(graph.filters()[channels].sum()))
    return select(
        graph, selected, scores, groups, share, of, scope, limits or Limits(), budget, names, up
    )


def lost(selection: Selection) -> dict[str, int]:
    """Return how many classes each group lost."""
    return {
        group.name: sum(number in selection.selected for number in group.channels)
        for group in example()[1].groups
    }


SIZES = {"a": 7, "b": 12, "c": 20, "d": 9}


def test_the_example_has_the_groups_that_it_should() -> None:
    graph = example()[1]
    assert {group.name: len(group.channels) for group in graph.groups} == SIZES
    assert graph.filters()[list(graph.groups[-1].channels)].tolist() == [2] * 9


# --- local ---------------------------------------------------------------------------------------


@given(SHARES, st.integers(0, 99))
def test_local_takes_the_share_of_each_layer_and_of_the_whole(share: Fraction, seed: int) -> None:
    """Each layer rounded up, so that narrow layers lost far more than the share."""
    chosen = choose(share, scores_of(seed))
    found = lost(chosen)
    most = {name: size - 1 for name, size in SIZES.items()}
    for name, size in SIZES.items():
        assert abs(found[name] - min(size * share, most[name])) <= 1
    whole = sum(found[name] * (2 if name == "d" else 1) for name in SIZES)
    assert abs(whole - 57 * share) <= Fraction(1, 2) or found == most
    assert chosen.clamped == tuple(name for name in SIZES if most[name] < SIZES[name] * share)


@given(SHARES, st.integers(1, 25), st.integers(0, 99))
def test_older_versions_rounded_each_layer_up(share: Fraction, least: int, seed: int) -> None:
    """A run that is resumed from one of their checkpoints ends as it would have."""
    chosen = choose(share, scores_of(seed), limits=Limits(min_channels=least), up=True)
    expected, clamped = {}, []
    for name, size in SIZES.items():
        wanted = ceil(size * Decimal(share.numerator) / Decimal(share.denominator))
        keep = ceil(least / 2) if name == "d" else least  # its classes are pairs
        expected[name] = max(0, min(wanted, size - keep))
        clamped += [name] if wanted > expected[name] else []
    assert lost(chosen) == expected
    assert sorted(chosen.clamped) == clamped


@given(SHARES, st.integers(0, 99))
def test_local_takes_the_lowest_scores_of_each_layer(share: Fraction, seed: int) -> None:
    scores = scores_of(seed)
    selected = choose(share, scores).selected
    for group in example()[1].groups:
        order = sorted(group.channels, key=lambda number: scores[number])
        number = sum(c in selected for c in group.channels)
        assert selected >= set(order[:number])


def test_equal_scores_go_by_their_number() -> None:
    graph = example()[1]
    for scope in ("local", "global"):
        selected = choose(Fraction(1, 3), np.ones(graph.channel_count), scope=scope).selected
        for group in graph.groups:
            number = sum(c in selected for c in group.channels)
            assert selected >= set(sorted(group.channels)[:number])


# --- global --------------------------------------------------------------------------------------


def naive_global(scores: np.ndarray, enough: Callable[[frozenset[int]], bool]) -> frozenset[int]:
    """Take the lowest score of all, one by one, but the last of no layer, until it is enough."""
    graph = example()[1]
    selected: frozenset[int] = frozenset()
    protected = {max(group.channels, key=lambda n: (scores[n], n)) for group in graph.groups}
    queue = sorted(set(graph.channels) - protected, key=lambda n: (scores[n], n))
    for number in queue:
        if enough(selected):
            break
        selected |= {number}
    return selected


@settings(deadline=None, max_examples=30)
@given(SHARES, st.integers(0, 99), st.sampled_from(["filters", "parameters", "macs"]))
def test_global_takes_the_lowest_scores_until_the_share_is_nearest(
    share: Fraction, seed: int, of: Any
) -> None:
    net, graph, names = example()
    spent = cost(net, torch.zeros(1, 3, 4, 4))
    total = {"filters": 57, "parameters": spent.parameters, "macs": spent.macs}[of]
    scores = scores_of(seed)

    def off(selected: frozenset[int]) -> Fraction:
        return abs(count_saved(graph, selected, of, names) - share * total)

    def enough(selected: frozenset[int]) -> bool:
        return count_saved(graph, selected, of, names) >= share * total

    chosen = choose(share, scores, of, "global")
    naive = naive_global(scores, enough)
    assert off(chosen.selected) <= off(naive)
    assert len(naive ^ chosen.selected) <= 9  # one of the next channels may come nearer
    assert choose(share, scores, of, "global", up=True).selected == naive
    if of != "filters":
        assert bool(chosen.clamped) == (not enough(naive_global(scores, lambda _: False)))


def test_global_may_leave_a_layer_whole() -> None:
    graph = example()[1]
    scores = np.ones(graph.channel_count)
    scores[list(graph.groups[0].channels)] = 9.0
    assert lost(choose(Fraction(1, 2), scores, scope="global"))["a"] == 0


# --- both ----------------------------------------------------------------------------------------

OPTIONS = {
    "of": st.sampled_from(["filters", "parameters", "macs"]),
    "scope": st.sampled_from(["local", "global"]),
}
LIMITS = st.builds(Limits, st.integers(1, 5), st.integers(1, 9))


@settings(deadline=None, max_examples=60)
@given(st.lists(SHARES, min_size=2, max_size=4), st.fixed_dictionaries(OPTIONS), LIMITS)
def test_what_is_gone_stays_gone_as_the_share_rises(
    shares: list[Fraction], options: dict[str, Any], limits: Limits
) -> None:
    selected: frozenset[int] = frozenset()
    for seed, share in enumerate(sorted(shares)):
        scores = scores_of(seed)
        scores[list(selected)] = np.nan  # what is gone has no score
        chosen = choose(share, scores, selected=selected, limits=limits, **options)
        assert chosen.selected >= selected
        selected = chosen.selected


@settings(deadline=None, max_examples=60)
@given(SHARES, st.fixed_dictionaries(OPTIONS), LIMITS, st.integers(0, 9))
def test_widths_are_multiples_and_at_least_min_channels(
    share: Fraction, options: dict[str, Any], limits: Limits, seed: int
) -> None:
    chosen = choose(share, scores_of(seed), limits=limits, **options)
    for name, number in lost(chosen).items():
        width = (SIZES[name] - number) * (2 if name == "d" else 1)
        assert width >= limits.min_channels or number == 0
        assert width % limits.round_to == 0 or number == 0


def test_rounding_goes_to_the_nearest_multiple_that_min_channels_allow() -> None:
    half, scores = Fraction(1, 2), scores_of(0)
    assert lost(choose(half, scores, limits=Limits(1, 8))) == {"a": 0, "b": 4, "c": 12, "d": 5}
    # 13 of 20 would stay: 16 is nearer than 8
    third = choose(Fraction(7, 20), scores, limits=Limits(1, 8))
    assert lost(third) == {"a": 0, "b": 4, "c": 4, "d": 5}
    # 10 of 20 are wanted; 8 is nearer than 16, but fewer than 10 may not stay
    assert lost(choose(half, scores, limits=Limits(10, 8)))["c"] == 4


def test_layers_too_narrow_for_min_channels_are_clamped_and_others_not() -> None:
    chosen = choose(Fraction(1, 2), scores_of(0), limits=Limits(min_channels=8))
    # The others lose more than their half, so that half of all 57 filters go.
    assert lost(chosen) == {"a": 0, "b": 4, "c": 12, "d": 5}
    assert sorted(chosen.clamped) == ["a", "b"]


def test_nothing_asked_for_nothing_goes() -> None:
    for of in ("filters", "parameters", "macs"):
        for scope in ("local", "global"):
            assert choose(Fraction(0), scores_of(0), of, scope) == Selection(frozenset())


@settings(deadline=None, max_examples=30)
@given(SHARES, st.sampled_from(["parameters", "macs"]), st.integers(0, 9))
def test_a_local_share_of_the_cost_is_met_to_half_a_channel(
    share: Fraction, of: Any, seed: int
) -> None:
    net, graph, names = example()
    spent = cost(net, torch.zeros(1, 3, 4, 4))
    due, scores = share * getattr(spent, of), scores_of(seed)
    chosen = choose(share, scores, of)

    def off(selected: frozenset[int]) -> Fraction:
        return abs(count_saved(graph, selected, of, names) - due)

    shares = [number / SIZES[name] for name, number in lost(chosen).items()]
    assert max(shares) - min(shares) <= 2 / 7 + 1e-9  # the same of each, but for rounding
    more: list[frozenset[int]] = []
    for group in graph.groups:
        order = sorted(group.channels, key=lambda c: (scores[c], c))
        number = sum(c in chosen.selected for c in order)
        if number < len(order) - 1:
            more.append(chosen.selected | {order[number]})
    saved = count_saved(graph, chosen.selected, of, names)
    steps = [count_saved(graph, other, of, names) - saved for other in more]
    assert chosen.clamped or off(chosen.selected) <= max(steps, default=due) / 2


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("of", ["parameters", "macs"])
def test_a_share_that_cannot_be_reached_names_all_layers_and_takes_all_it_can(
    of: Any, scope: Any
) -> None:
    chosen = choose(Fraction(99, 100), scores_of(0), of, scope, limits=Limits(4))
    assert lost(chosen) == {"a": 3, "b": 8, "c": 16, "d": 7}
    assert sorted(chosen.clamped) == list(SIZES)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_layers_without_a_score_lose_nothing(scope: Any) -> None:
    graph, scores = example()[1], scores_of(0)
    scores[graph.groups[1].channels[3]] = np.nan
    chosen = choose(Fraction(1, 2), scores, "parameters", scope)
    assert lost(chosen)["b"] == 0
    found = lost(choose(Fraction(1, 2), scores, scope="local"))
    assert found in ({"a": 3, "b": 0, "c": 10, "d": 5}, {"a": 4, "b": 0, "c": 10, "d": 4})


@pytest.mark.parametrize("scope", ["local", "global"])
def test_groups_that_are_not_given_lose_nothing_more(scope: Any) -> None:
    first = choose(Fraction(1, 4), scores_of(0)).selected
    chosen = choose(Fraction(1, 2), scores_of(1), scope=scope, selected=first, groups=(0, 2))
    found = lost(chosen)
    assert (found["b"], found["d"]) == (3, 2)
    assert chosen.selected >= first


# --- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("of", ["filters", "parameters", "macs"])
def test_layers_of_a_rule_lose_its_share_whatever_the_others_do(of: Any, scope: Any) -> None:
    ratios = {0: Fraction(3, 4), 2: Fraction(0)}
    chosen = choose(Fraction(1, 5), scores_of(0), of, scope, limits=Limits(ratios=ratios))
    assert lost(chosen)["a"] == 6
    assert lost(chosen)["c"] == 0


def test_layers_of_a_rule_are_clamped_too() -> None:
    chosen = choose(Fraction(0), scores_of(0), limits=Limits(5, ratios={0: Fraction(3, 4)}))
    assert lost(chosen) == {"a": 2, "b": 0, "c": 0, "d": 0}
    assert chosen.clamped == ("a",)


def test_what_a_rule_takes_counts_towards_the_share_of_the_cost() -> None:
    net, graph, names = example()
    ratios = {2: Fraction(1, 2)}
    only = choose(Fraction(0), scores_of(0), "parameters", limits=Limits(ratios=ratios))
    share = Fraction(
        count_saved(graph, only.selected, "parameters", names),
        cost(net, torch.zeros(1, 3, 4, 4)).parameters,
    )
    assert choose(share, scores_of(0), "parameters", limits=Limits(ratios=ratios)) == only


# --- what it saves -------------------------------------------------------------------------------


class Turned(nn.Module):
    """Transposed convolutions: plain, one filter a channel, and grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.ConvTranspose2d(12, 12, 3, groups=12), nn.ConvTranspose2d(12, 8, 3, groups=2)),
            *(nn.GroupNorm(4, 8), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.LazyLinear(3)),
        )
        self.net(torch.zeros(1, 3, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Shared(nn.Module):
    """A layer that is called three times, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.two.weight = self.one.weight
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.one(self.first(x).relu()).relu()).relu()
        return self.head(self.two(x).relu().mean((2, 3)))


class Attention(nn.Module):
    """Attention that is written out, in which two heads may share their keys and values."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor], shared: int = 1) -> None:
        super().__init__()
        self.attend, self.stem = attend, nn.Conv2d(3, 16, 8, stride=8)
        self.queries, self.proj = nn.Linear(16, 6 * 4), nn.Linear(6 * 4, 16)
        self.keys, self.values = (nn.Linear(16, 6 // shared * 4) for _ in range(2))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        layers = (self.queries, self.keys, self.values)
        parts = [layer(x).unflatten(2, (-1, 4)).transpose(1, 2) for layer in layers]
        return self.head((x + self.proj(self.attend(*parts).transpose(1, 2).flatten(2))).mean(1))


class Encoder(nn.Module):
    """Torch's own encoder, and an attention that returns its weights."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 16, 8, stride=8), batch_first
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=batch_first)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pool = nn.MultiheadAttention(16, 2, batch_first=batch_first)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        x = self.body(x if self.first else x.transpose(0, 1))
        x = self.pool(x, x, x, need_weights=True)[0]
        return self.head(x.mean(1 if self.first else 0))


class Crossed(nn.Module):
    """Torch's own transformer, whose decoder takes queries from one sequence, the rest from two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, stride=8)
        self.body = nn.Transformer(16, 4, 1, 1, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        return self.head(self.body(x, x[:, :5]).mean(1))


def written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT).softmax(-1) @ value


def in_letters(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = torch.einsum("bhid,bhjd->bhij", query, key).softmax(-1)
    return torch.einsum("bhij,bhjd->bhid", weights, value)


def as_one_batch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (part.flatten(0, 1) for part in (query, key, value))
    return torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).unflatten(0, query.shape[:2])


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return query @ torch.einsum("bhjd,bhje->bhde", key.softmax(-2), value)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{
        name: lambda name=name: torchvision.models.get_model(name, weights=None)
        for name in ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1")
    },
    "resnext": lambda: ResNet(Bottleneck, [1, 1, 1, 1], 4, groups=4, width_per_group=16),
    "densenet": lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=4),
    "convnext": lambda: ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)]),
    "vit": lambda: VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5),
    "swin": lambda: SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=4),
    "encoder": lambda: Encoder(batch_first=True),
    "encoder, batch second": lambda: Encoder(batch_first=False),
    "crossed": Crossed,
    **{
        way.__name__: lambda way=way: Attention(way)
        for way in (written_out, in_letters, as_one_batch, linear_attention)
    },
    "fused": lambda: Attention(nn.functional.scaled_dot_product_attention),
    "shared keys": lambda: Attention(
        partial(nn.functional.scaled_dot_product_attention, enable_gqa=True), shared=2
    ),
    "turned": Turned,
    "shared": Shared,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_said_to_be_saved_is_what_goes(name: str) -> None:
    torch.manual_seed(0)
    model, images = NETWORKS[name]().eval(), torch.randn(2, 3, 32, 32)
    graph, before = analyse(model, images), cost(model, images)
    names = frozenset(name for name, _ in model.named_parameters())
    for seed in range(2):
        random = np.random.default_rng(seed)
        selected = frozenset(
            number
            for group in graph.groups
            for number in random.permutation(group.channels)[
                : random.integers(0, graph.removable(group) + 1)
            ].tolist()
        )
        small = copy.deepcopy(model)
        apply(make_plan(graph, selected), small)
        after = cost(small, images)
        for of in ("parameters", "macs"):
            assert count_saved(graph, selected, of, names) == getattr(before, of) - getattr(
                after, of
            ), of
        assert count_saved(graph, selected, "filters", names) == filters(model) - filters(small)


def filters(model: nn.Module) -> int:
    """Return the filters of a network's weights, shared ones once, as the layers state them."""
    found = {}
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            turned = isinstance(layer, nn.ConvTranspose2d) and layer.groups < layer.in_channels
            found[layer.weight] = layer.weight.shape[1 if turned else 0]
        elif isinstance(layer, nn.MultiheadAttention):
            found[layer.in_proj_weight] = layer.in_proj_weight.shape[0]
    return sum(found.values())
