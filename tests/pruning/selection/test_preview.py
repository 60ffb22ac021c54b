"""The tables of a preview are plain text."""

from __future__ import annotations

from fractions import Fraction

from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.budget import Budget
from lit_compress.pruning.selection.preview import LayerPreview, PruningPreview, WeightPreview


def test_the_table_is_plain_text() -> None:
    found = PruningPreview(
        (LayerPreview("body.0", 1024, 512), LayerPreview("head", 10, 10, 10, ("a", "b"))),
        Budget(2000, 3_000_000),
        Budget(1500, 1_000_000),
    )
    assert str(found).splitlines() == [
        "layer   filters    kept  cannot be removed",
        "body.0     1024     512",
        "head         10      10  10: a; b",
        "parameters: 2,000 to 1,500 (25.0% removed)",
        "MACs of one example: 3,000,000 to 1,000,000 (66.7% removed)",
    ]


def test_the_table_of_nothing_has_no_shares() -> None:
    lines = str(PruningPreview((), Budget(0, 0), Budget(0, 0))).splitlines()
    assert lines == [
        "layer  filters    kept  cannot be removed",
        "parameters: 0 to 0",
        "MACs of one example: 0 to 0",
    ]


def test_operators_whose_macs_are_not_known_are_named() -> None:
    before, after = Budget(9, 8, uncounted=("_fft_r2c", "theirs::scan")), Budget(9, 4)
    last = str(PruningPreview((), before, after)).splitlines()[-1]
    assert last == "MACs of one example, without _fft_r2c, theirs::scan: 8 to 4 (50.0% removed)"


def test_weights_come_before_layers() -> None:
    rule = Rule("a", Fraction(1, 2), "rules.yaml:1")
    weights = (
        WeightPreview("a.weight", rule, "filter", 8, 4),
        WeightPreview("b", None, "nothing", 2, 2),
    )
    cost = Budget(10, 100)
    lines = str(PruningPreview((LayerPreview("a", 2, 1),), cost, cost, weights)).splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["weight", "a.weight", "b", "40.0%", "layer"]
    assert lines[1].endswith("filter     0.5  rules.yaml:1")
    assert lines[2].endswith("no rule matches")


def test_an_empty_preview_prunes_nothing() -> None:
    assert PruningPreview().share == 0
    assert "0.0% of these weights will be pruned" in str(PruningPreview())
