"""Which rule counts for which weight, and what rules refuse."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_compress.errors import PatternError, RuleError
from lit_compress.pruning.rules.files import read_rules
from lit_compress.pruning.rules.rule import (
    Rule,
    assign,
    check_rules,
    default_rules,
    first_match,
    overruled,
)

HALF = Fraction(1, 2)


class Net(nn.Module):
    """Two convolutions with a norm, and a linear layer, inside a wrapper."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential()
        self.model.features = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1)
        )
        self.model.classifier = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.model.classifier(self.model.features(x).mean((2, 3)))


FIRST, SECOND = "model.features.0.weight", "model.features.2.weight"
LAST = "model.classifier.weight"


def test_the_first_rule_that_matches_a_layer_or_its_weight_counts() -> None:
    rules = [Rule("a.*", None, "f:1"), Rule("b.weight", None, "f:2"), Rule("*", None, "f:3")]
    assert first_match(rules, ["b", "a.0"]) is rules[0]
    assert first_match(rules, ["b"]) is rules[1]
    assert first_match(rules, ["c"]) is rules[2]
    assert first_match(rules[:2], ["c"]) is None
    assert first_match(rules, []) is None


def test_a_rule_that_matches_no_layer_is_named_by_its_place() -> None:
    check_rules([Rule("model.*", None, "f.yaml:7")], ["model.0"])
    with pytest.raises(RuleError, match=r"^f\.yaml:7: the pattern '0' matches no .*: model\.0"):
        check_rules([Rule("0", None, "f.yaml:7")], ["model.0"])


def test_weights_get_the_first_rule_and_the_rest_is_left_alone() -> None:
    skip = Rule("*.features.0", None, "f:1")
    some = Rule("regex:.*features[.][0-9]", HALF, "f:2")
    assert assign(Net(), [skip, some]) == {SECOND: some}
    assert assign(Net(), [skip]) == {}
    everything = Rule("*", Fraction(0), "f:3")
    assert list(assign(Net(), [everything])) == [FIRST, SECOND, LAST]
    lines = overruled(Net(), [skip, some, everything])
    assert lines == [
        f"{FIRST}: f:1 over f:2, f:3",
        f"{SECOND}: f:2 over f:3",
    ]


def test_names_of_lines_may_start_after_any_dot_and_those_of_others_may_not() -> None:
    line = Rule("features.0.weight", HALF, "f:1", "filter", "l2", (), True)
    assert assign(Net(), [line]) == {FIRST: line}
    with pytest.raises(RuleError, match=r"^f:1: the pattern 'features\.0\.weight' matches no"):
        assign(Net(), [Rule("features.0.weight", HALF, "f:1")])
    with pytest.raises(RuleError, match=r"^f:1: the pattern 'eatures\.0\.weight' matches no"):
        assign(Net(), [Rule("eatures.0.weight", HALF, "f:1", "filter", "l2", (), True)])


def test_a_file_of_the_original_code_names_norms_too_which_it_skips(tmp_path: Path) -> None:
    """Its files have a line for each norm: such a line was an error, and the files unusable."""
    path = tmp_path / "fmnist.rule"
    names = ("features.0.weight", "features.1.weight", "features.2.weight", "classifier.weight")
    kinds = ("l2norm", "l2norm", "l2norm", "abs")
    path.write_text("".join(f"{n},0.3;0.3,{k},\n" for n, k in zip(names, kinds, strict=True)))
    assert list(assign(Net(), read_rules(path))) == [FIRST, SECOND, LAST]
    path.write_text(path.read_text() + "features.7.weight,0.3,l2norm,\n")
    with pytest.raises(RuleError, match=r"fmnist\.rule:5: the pattern 'features\.7\.weight'"):
        assign(Net(), read_rules(path))


def test_the_default_rules_are_the_original_codes() -> None:
    found = default_rules(Net(), HALF)
    assert [(r.pattern, r.granularity, r.importance, r.ratio) for r in found] == [
        (FIRST, "filter", "l2", HALF),
        (SECOND, "filter", "l2", HALF),
        (LAST, "element", "abs", HALF),
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("*", HALF, "f:9", "filter"), rf"f:9: {LAST} is the weight of a linear layer \(2 dim"),
        (Rule("*", HALF, "f:9", "neuron"), rf"f:9: {FIRST} is the weight of a convolution"),
        (Rule("*", HALF, "f:9", None, "abs"), rf"f:9: importance 'abs' .*filters of {FIRST}: use "),
        (Rule("*", HALF, "f:9", "element", "fpgm"), "f:9: importance 'fpgm' .*use one of abs"),
        (Rule("none", HALF, "f:9"), "f:9: the pattern 'none' matches no"),
        (Rule("none", None, "f:9"), "f:9: the pattern 'none' matches no"),
    ],
)
def test_rules_that_do_not_fit_a_weight_are_named_by_their_place(rule: Rule, message: str) -> None:
    with pytest.raises(RuleError, match=f"^{message}"):
        assign(Net(), [rule])


def test_only_what_is_pruned_must_have_a_plain_weight() -> None:
    net = Net()
    nn.utils.parametrizations.weight_norm(net.model.classifier)
    assert list(assign(net, [Rule("*features*", HALF, "f:1"), Rule("*", None, "f:2")])) == [
        FIRST,
        SECOND,
    ]
    with pytest.raises(PatternError, match=r"'model\.classifier' has a parametrised weight"):
        assign(net, [Rule("*", HALF, "f:1")])


def test_a_tied_weight_has_one_rule_and_all_its_names() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    rule = Rule("2", HALF, "f:1")
    assert assign(net, [rule]) == {"0.weight": rule}
    assert overruled(net, [rule, Rule("0", None, "f:2")]) == ["0.weight: f:1 over f:2"]


def test_shares_due_by_schedule_and_by_stage() -> None:
    plain = Rule("a", HALF, "")
    assert [plain.due(Fraction(step, 2), step) for step in range(3)] == [0, Fraction(1, 4), HALF]
    assert Rule("a", None, "").due(Fraction(1), 3) == 0
    staged = Rule("a", HALF, "", stages=(Fraction(1, 8), Fraction(1, 4), HALF))
    assert [staged.due(Fraction(1, 9), step) for step in range(5)] == [*staged.stages, HALF, HALF]
    assert [staged.unreached(events) for events in (1, 2, 3, 9)] == [True, True, False, False]
    same = Rule("a", HALF, "", stages=(HALF, HALF))  # the original code's two equal stages
    assert not same.unreached(1)


def test_lazy_weights_are_said() -> None:
    net = nn.Sequential(nn.LazyLinear(3))
    line = Rule("0.weight", HALF, "f:1", "element", "abs", (), True)
    with pytest.raises(PatternError, match="lazy and has no weight yet"):
        assign(net, [line])


def test_granularity_without_one_stated() -> None:
    rule = Rule("*", HALF, "")
    assert [rule.kind(torch.empty(shape).dim()) for shape in ((2, 3), (2, 3, 1), (2, 3, 1, 1))] == [
        "element",
        "filter",
        "filter",
    ]


def test_a_line_that_names_what_is_neither_layer_nor_norm_is_an_error() -> None:
    """A line for a table of words would prune nothing, and nobody would know."""
    net = nn.Sequential()
    net.words, net.head = nn.Embedding(5, 4), nn.Linear(4, 2)
    line = Rule("words.weight", HALF, "f:1", "element", "abs", (), True)
    with pytest.raises(RuleError, match=r"^f:1: the pattern 'words\.weight' matches no"):
        assign(net, [line])
