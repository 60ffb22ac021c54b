from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lit_compress.artifact import Card, Fidelity, Metric, Timing, TimingRatio, Variant
from lit_compress.report import card_scalars


def timing(*ratios: TimingRatio) -> Timing:
    return Timing("pytorch", 1, 1, 0.002, (0.001, 0.003), 0.99, 60, ratios)


def test_scalars() -> None:
    dense = Variant(
        "dense", 100, 90, 5000, 400, "a.ckpt", Metric("val_acc", 0.75, "val", 8), timing()
    )
    int8 = Variant(
        "int8",
        100,
        50,
        5000,
        120,
        metric=Metric("val_acc", 0.7, "val", 8),
        latency=timing(
            TimingRatio("dense", 3.0, (2, 4), True), TimingRatio("pruned", 1.01, (0.9, 1.1), False)
        ),
        fidelity=Fidelity(30.5, 0.99, 64),
    )
    scalars = card_scalars(Card("run", (dense, int8), {}))
    assert scalars == {
        "compress/dense/parameters": 100,
        "compress/dense/nonzero": 90,
        "compress/dense/macs": 5000,
        "compress/dense/bytes": 400,
        "compress/dense/val_acc": 0.75,
        "compress/dense/seconds": 0.002,
        "compress/int8/parameters": 100,
        "compress/int8/nonzero": 50,
        "compress/int8/macs": 5000,
        "compress/int8/bytes": 120,
        "compress/int8/val_acc": 0.7,
        "compress/int8/seconds": 0.002,
        "compress/int8/speedup_over_dense": 3.0,
        "compress/int8/sqnr_db": 30.5,
    }
    assert {type(value) for value in scalars.values()} == {float}


def test_what_was_not_measured_has_no_scalar() -> None:
    card = Card("run", (Variant("a", 0, 0),), {})
    assert card_scalars(card) == {"compress/a/parameters": 0, "compress/a/nonzero": 0}
    assert card_scalars(Card("run", (), {})) == {}


names = st.text("ab 8", min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(names, names)
def test_tags_are_one_word(name: str, over: str) -> None:
    """The variant's name had its spaces replaced, the baseline's had not."""
    ratio = TimingRatio(over, 2.0, (1.5, 2.5), True)
    card = Card("run", (Variant(name, 1, 1, 1, 1, latency=timing(ratio)),), {})
    scalars = card_scalars(card)
    assert len(scalars) == 6
    assert not [tag for tag in scalars if " " in tag]
