"""What fell short."""

from __future__ import annotations

from dataclasses import replace

from lit_compress.artifact import Card, Fidelity, Metric, TimingRatio, Variant
from lit_compress.report.shortfalls import shortfalls
from report.cards import full_card, metric, timing


def test_all_of_the_full_card() -> None:
    assert shortfalls(full_card()) == [
        "FilterPruning: 0.60 of 0.70 reached",
        "int8: only 60% of the weights are int8; float are net.head.lstm (40%: lstm has no int8 "
        "form here)",
        "int8: outputs far from those of the float network, at 14.2 dB SQNR, the same class for "
        "87.6% of 287 calibration inputs",
        "int8: val_acc is worse than that of dense (0.9026, before 0.9721)",
    ]


def test_nothing() -> None:
    dense = Variant("dense", 9, 9, bytes=9, metric=metric(0.9, 0.8, 1), latency=timing("p", 1.0))
    int8 = replace(dense, name="int8", fidelity=Fidelity(40.0, 0.99, 9), int8_share=1.0)
    assert shortfalls(Card("run", (dense, int8), {})) == []


def test_a_slower_file() -> None:
    ratio = TimingRatio("pruned onnx", 0.8, (0.7, 0.9), True)
    variant = Variant(
        "int8", 9, 9, bytes=9, metric=metric(1, 1, 1), latency=timing("o", 1.0, ratio)
    )
    assert shortfalls(Card("run", (variant,), {})) == [
        "int8: slower than pruned onnx (0.80x) here: lit_compress.load(path, weights='fp32') runs "
        "the faster file"
    ]
    eager = replace(variant, latency=timing("o", 1.0, replace(ratio, over="dense")))
    assert shortfalls(Card("run", (eager,), {})) == ["int8: slower than dense (0.80x)"]


def test_a_loss_is_worse_if_it_rises() -> None:
    low, high = (Metric("val_loss", value, "val", 9) for value in (0.1, 0.2))
    for first, last, worse in [(low, high, True), (high, low, False)]:
        variants = (Variant("a", 9, 9, metric=first), Variant("b", 9, 9, metric=last))
        lines = shortfalls(Card("run", variants, {}))
        assert any("worse" in line for line in lines) is worse


def test_no_variants() -> None:
    assert shortfalls(Card("run", (), {})) == ["the card has no variants"]
