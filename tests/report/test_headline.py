"""The headline of a run."""

from __future__ import annotations

from dataclasses import replace

from lit_compress.artifact import Card, Metric, Variant
from lit_compress.report.headline import Fact, headline, interval_text
from report.cards import full_card


def test_one_variant_is_compared_with_nothing() -> None:
    dense = full_card().variants[0]
    assert headline(Card("run", (dense,), {}))[:2] == [
        Fact("val_acc", "", "0.9721", "95 % interval 0.9460 to 0.9858, 1,200 val images"),
        Fact("on disk", "", "1.48 MB", "1,483,192 bytes"),
    ]


def test_only_measured_figures() -> None:
    bare = Variant("int8", 5, 4)
    assert [f.label for f in headline(Card("run", (bare, bare), {}))] == ["parameters"]
    assert headline(Card("run", (), {})) == []


def test_a_base_that_is_not_on_the_card() -> None:
    card = full_card()
    labels = [fact.label for fact in headline(replace(card, variants=card.variants[-1:]))]
    assert labels[-2:] == ["speed over dense", "speed over pruned onnx"]


def test_a_metric_without_an_interval() -> None:
    assert interval_text(Metric("val_loss", 0.5, "test", 10)) == "no interval, 10 test images"
