"""The console's table, against one written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_compress.artifact import Card, Fidelity, Metric, Timing, TimingRatio, Variant
from lit_compress.artifact.variant import FloatWeight
from lit_compress.report import card_table
from lit_compress.report.table import human_bytes


def timing(*ratios: TimingRatio) -> Timing:
    return Timing("pytorch", 1, 2, 0.001, (0.0009, 0.0011), 0.99, 60, ratios)


DENSE = Variant(
    "dense",
    2_236_682,
    2_236_000,
    6_310_000,
    9_123_456,
    "best.ckpt",
    Metric("val_acc", 0.91234, "val", 12_000, (0.90734, 0.91734)),
    timing(),
)
PRUNED = Variant(
    "pruned",
    2_236_682,
    223_668,
    6_310_000,
    metric=Metric("val_acc", 0.905, "val", 12_000, (0.9, 0.91)),
    latency=timing(TimingRatio("dense", 1.02, (0.98, 1.04), False)),
    note="zeros are stored",
)
INT8 = Variant(
    "int8",
    2_236_682,
    223_000,
    None,
    999,
    metric=Metric("val_acc", 0.9, "val", 12_000, (0.895, 0.904)),
    latency=timing(
        TimingRatio("dense", 12.345, (11, 13), True), TimingRatio("pruned", 2.5, (2, 3), True)
    ),
    fidelity=Fidelity(31.25, 0.98765, 512),
)
CARD = Card(
    "run",
    (DENSE, PRUNED, INT8),
    {},
    pruning=(
        {"callback": "MagnitudePruning", "target": 0.9, "reached": 0.9},
        {"callback": "ChannelPruning", "target": 0.5, "reached": 0.25},
    ),
)

EXPECTED = """\
variant  val_acc    weights  zeros    MACs  on disk     time  vs dense  vs pruned
-------  -------  ---------  -----  ------  -------  -------  --------  ---------
dense     0.9123  2,236,682     0%  6.31 M  9.12 MB  1.00 ms         1          -
pruned    0.9050  2,236,682    90%  6.31 M        -  1.00 ms      same          1
int8      0.9000  2,236,682    90%       -    999 B  1.00 ms     12.3x      2.50x
pruned: zeros are stored
int8: outputs at 31.2 dB SQNR against the float network, the same class for
  98.8% of 512 calibration inputs
val_acc: over 12,000 val images, each within 0.0050 (95 %)
time: batch 1, 2 threads, medians of 60 rounds in turn (x: of the ratios in each
  round); 'same' where the 99% interval contains 1; other processors give other
  figures
ChannelPruning: 0.25 of 0.50 reached"""


def test_table() -> None:
    assert card_table(CARD) == EXPECTED


def test_nothing_measured() -> None:
    assert card_table(Card("run", (Variant("dense", 1000, 10),), {})).splitlines() == [
        "variant  metric  weights  zeros  MACs  on disk",
        "-------  ------  -------  -----  ----  -------",
        "dense         -    1,000    99%     -        -",
    ]


def test_no_variants() -> None:
    assert len(card_table(Card("run", (), {})).splitlines()) == 2


def test_splits_are_named_and_the_widest_interval_given() -> None:
    other = replace(INT8, metric=Metric("val_acc", 0.9, "test", 100, (0.84, 0.96)))
    table = card_table(Card("run", (DENSE, other), {}))
    assert "val_acc: over 12,000 val images and 100 test images, each within 0.0600" in table


def test_a_metric_without_interval() -> None:
    loss = Variant("dense", 1, 1, metric=Metric("val_loss", 0.5, "val", 10))
    assert card_table(Card("run", (loss,), {})).endswith("\nval_loss: over 10 val images")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.builds(
            Variant,
            st.text("abc 8", min_size=1, max_size=20),
            st.integers(0, 10**12),
            st.integers(0, 10**12),
            st.none() | st.integers(0, 10**15),
            st.none() | st.integers(0, 10**15),
        ),
        max_size=4,
    )
)
def test_rows_are_as_wide_as_their_rule(variants: list[Variant]) -> None:
    lines = card_table(Card("run", tuple(variants), {})).split("\n")
    assert len(lines) == 2 + len(variants)
    assert {len(line) for line in lines} == {len(lines[1])}
    for line, variant in zip(lines[2:], variants, strict=True):
        assert line.startswith(variant.name)
        exact = variant.parameters < 10_000_000
        assert f" {variant.parameters:,} " in line if exact else " M " in line or " G " in line


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1536, "1.54 kB"),
        (2_350_000, "2.35 MB"),
        (5_000_000_000, "5.00 GB"),
        (1_234_000_000_000, "1234.00 GB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**14))
def test_bytes_can_be_read_back(count: int) -> None:
    number, unit = human_bytes(count).split()
    size = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}[unit]
    assert abs(float(number) * size - count) <= 0.00501 * size


def test_float_weights_are_the_first_line() -> None:
    """Files without a single int8 weight were reported as int8."""
    weights = tuple(FloatWeight(f"layer{i}", 0.125, "no int8 form") for i in range(7))
    low = replace(INT8, int8_share=0.125, float_weights=weights)
    lines = card_table(replace(CARD, variants=(DENSE, low))).splitlines()
    assert lines[0].startswith("int8: only 12% of the weights are int8; float are layer0 (12%: no")
    assert lines[0].endswith("layer4 (12%: no int8 form), and 2 more (25%)")
    assert lines[1].startswith("variant")
    high = replace(INT8, int8_share=0.95)
    assert card_table(replace(CARD, variants=(DENSE, high))).startswith("variant")


def test_no_agreement_has_its_reason() -> None:
    regression = replace(INT8, fidelity=Fidelity(31.25, None, 512))
    text = " ".join(card_table(replace(CARD, variants=(regression,))).split())
    assert "no agreement, as no label says" in text
    pixels = Fidelity(31.25, 0.5, 512, agreement_on="class at each position")
    assert (
        pixels.agreement_text
        == "the same class at 50.0% of the positions of 512 calibration inputs"
    )
    sign = Fidelity(31.25, 0.5, 512, agreement_on="sign")
    assert sign.agreement_text == "the same sign for 50.0% of the outputs of 512 calibration inputs"
