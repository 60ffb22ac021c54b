from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from lit_compress.errors import ChannelError, PatternError, RuleError
from lit_compress.pruning import ChannelGraph, analyse
from lit_compress.pruning.importance import L2, BatchNormScale
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.eligible import Eligible, eligible_groups


class Net(nn.Module):
    """A stem, a residual block with a depthwise convolution, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 6, 1)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.back = nn.Conv2d(6, 8, 1)
        self.last = nn.Conv2d(8, 5, 1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.back(self.deep(self.wide(x)).relu())
        return self.head(self.last(x).relu().mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def graph(net: Net) -> ChannelGraph:
    return analyse(net, torch.randn(2, 3, 4, 4))


def names(graph: ChannelGraph, eligible: Eligible) -> set[str]:
    return {graph.groups[index].name for index in eligible.groups}


def test_all_that_can_go_is_eligible(net: Net, graph: ChannelGraph) -> None:
    found = eligible_groups(net, graph, L2())
    assert names(graph, found) == {"stem", "wide", "last"}
    assert found.excluded == {}
    assert found.ratios == {}


def test_layers_tied_by_an_addition_must_all_be_included(net: Net, graph: ChannelGraph) -> None:
    found = eligible_groups(net, graph, L2(), ["stem", "last"])
    assert names(graph, found) == {"last"}
    assert found.excluded["stem"].startswith("back is not included")
    found = eligible_groups(net, graph, L2(), ["stem", "back.weight"])
    assert names(graph, found) == {"stem"}


def test_a_depthwise_layer_need_not_be_included_but_may_be_excluded(
    net: Net, graph: ChannelGraph
) -> None:
    assert names(graph, eligible_groups(net, graph, L2(), ["wide"])) == {"wide"}
    found = eligible_groups(net, graph, L2(), exclude=["deep"])
    assert names(graph, found) == {"stem", "last"}
    assert found.excluded["wide"] == "deep is excluded, and its channels are coupled with these"


def test_exclusion_of_one_of_tied_layers_keeps_both(net: Net, graph: ChannelGraph) -> None:
    found = eligible_groups(net, graph, L2(), exclude=["ba*"])
    assert names(graph, found) == {"wide", "last"}
    assert found.excluded["stem"].startswith("back is excluded")


def test_layers_that_only_read_channels_may_be_excluded(net: Net, graph: ChannelGraph) -> None:
    assert names(graph, eligible_groups(net, graph, L2(), exclude=["head"])) == {
        *("stem", "wide", "last")
    }


def test_frozen_weights_keep_their_channels(net: Net, graph: ChannelGraph) -> None:
    net.back.weight.requires_grad = False
    found = eligible_groups(net, graph, L2())
    assert names(graph, found) == {"wide", "last"}
    assert found.excluded["stem"] == "back.weight is not trained (requires_grad is False)"


def test_a_pattern_without_a_match_is_refused(net: Net, graph: ChannelGraph) -> None:
    with pytest.raises(PatternError, match=r"include: the pattern 'steam'.*look like: stem"):
        eligible_groups(net, graph, L2(), ["steam"])
    with pytest.raises(PatternError, match="exclude: the pattern 'norm'"):
        eligible_groups(net, graph, L2(), exclude=["norm"])


def test_a_rule_gives_its_share_to_all_layers_tied_to_one_it_matches(
    net: Net, graph: ChannelGraph
) -> None:
    rules = [Rule("back", Fraction(1, 2), "f:1"), Rule("*", Fraction(1, 4), "f:2")]
    found = eligible_groups(net, graph, L2(), rules=rules)
    shares = {graph.groups[index].name: ratio for index, ratio in found.ratios.items()}
    assert shares == {"stem": Fraction(1, 2), "wide": Fraction(1, 4), "last": Fraction(1, 4)}


def test_a_rule_that_skips_is_the_reason_given(net: Net, graph: ChannelGraph) -> None:
    rules = [Rule("deep", None, "rules.yaml:3"), Rule("wide", Fraction(1, 2), "rules.yaml:4")]
    found = eligible_groups(net, graph, L2(), rules=rules)
    assert names(graph, found) == {"stem", "last"}
    assert found.excluded["wide"] == "a rule says so (rules.yaml:3)"
    assert found.ratios == {}


def test_a_rule_brings_no_excluded_layer_back(net: Net, graph: ChannelGraph) -> None:
    found = eligible_groups(
        net, graph, L2(), exclude=["last"], rules=[Rule("last", Fraction(0), "f:1")]
    )
    assert "last" in found.excluded
    assert found.ratios == {}


def test_a_rule_that_matches_nothing_is_refused(net: Net, graph: ChannelGraph) -> None:
    with pytest.raises(RuleError, match=r"^f:1: the pattern 'tail'"):
        eligible_groups(net, graph, L2(), rules=[Rule("tail", None, "f:1")])


def test_bn_scale_leaves_layers_without_a_norm_alone(net: Net, graph: ChannelGraph) -> None:
    found = eligible_groups(net, graph, BatchNormScale())
    assert names(graph, found) == {"stem"}
    assert (
        found.excluded["wide"]
        == found.excluded["last"]
        == "no norm follows it to rank its filters by"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["*"]}, "no channel of Net can be removed: stem: stem is excluded"),
        ({"include": ["head"]}, "stem is not included"),
        ({"rules": [Rule("*", None, "f:1")]}, r"a rule says so \(f:1\)"),
    ],
)
def test_nothing_left_is_refused_with_reasons(
    options: dict, message: str, net: Net, graph: ChannelGraph
) -> None:
    with pytest.raises(ChannelError, match=message):
        eligible_groups(net, graph, L2(), **options)


def test_reasons_of_what_was_left_out_are_shown() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(64, 2, bias=False))
    graph = analyse(net, torch.randn(1, 3, 4, 4))
    with pytest.raises(ChannelError, match="0 is excluded"):
        eligible_groups(net, graph, L2(), exclude=["0"])
    with pytest.raises(PatternError, match="the module has no conv or linear layer"):
        eligible_groups(nn.ReLU(), analyse(nn.ReLU(), torch.randn(1, 3)), L2())


class Shared(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b, self.c = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.c.weight = self.b.weight
        self.d = nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.b(self.a(x).relu()).relu()).relu()
        return self.head(self.d(x).mean((2, 3)))


def test_a_layer_that_shares_its_weight_is_found_by_either_name() -> None:
    net = Shared()
    graph = analyse(net, torch.randn(1, 3, 4, 4))
    for options in ({"exclude": ["c"]}, {"rules": [Rule("c", None, "f:1")]}):
        found = eligible_groups(net, graph, L2(), **options)
        assert names(graph, found) == {"d"}
        assert {"b", "c"} <= set(found.excluded)


class Bare(nn.Module):
    """A weight that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 6)
        self.block = nn.Module()
        self.block.w = nn.Parameter(torch.randn(6, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.first(x).relu() @ self.block.w).relu())


def test_a_weight_outside_layers_is_picked_by_its_own_name() -> None:
    net = Bare()
    graph = analyse(net, torch.randn(5, 3))
    assert len(graph.groups) == 2
    assert names(graph, eligible_groups(net, graph, L2(), ["first"])) == {"first"}
    assert names(graph, eligible_groups(net, graph, L2(), exclude=["block.*"])) == {"first"}
    found = eligible_groups(net, graph, L2(), exclude=["first"])
    assert list(found.excluded) == ["first"]
    assert [graph.groups[index].keys[0][0] for index in found.groups] == ["block.w"]


def test_the_largest_cause_is_named_first() -> None:
    """The causes came in the order of the layers, and the one that froze most was cut off."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(4, n) for n in (2, 3, 2, 40))
            self.norm, self.out = nn.LayerNorm(40), nn.Linear(40, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            sizes = (self.a(x).sum(-1), self.b(x).prod(-1), self.c(x).cumsum(-1))
            return (*sizes, self.out(self.norm(self.d(x))))

    net = Net()
    graph = analyse(net, torch.randn(2, 4))
    with pytest.raises(ChannelError, match=r"removed: d\.weight \(40 filters\): passes through"):
        eligible_groups(net, graph, L2())
