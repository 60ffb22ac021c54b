"""The figures of the layers: their numbers, and the reasons where there are none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lit_compress.artifact import Card
from lit_compress.artifact.history import Layers
from lit_compress.report.layer_drawings import float_table, layer_drawings
from report.cards import WIDTHS, full_card


def test_the_tables_have_what_the_card_has() -> None:
    card = full_card()
    kept, channels, sqnr = layer_drawings(card, "run-1")
    assert kept.table
    assert channels.table
    assert sqnr.table
    first, last = card.history[0].layers, card.history[-1].layers
    assert first
    assert last
    for row in kept.table.body:
        before, after = first.channels[row[0]], last.channels[row[0]]
        assert row[1] == f"{before:,} to {after:,} ({after / before:.0%})"
    assert [row[0] for row in channels.table.body] == list(WIDTHS)
    assert list(channels.table.head) == ["layer", "epoch 0", "epoch 2", "epoch 4", "epoch 5"]
    assert list(sqnr.table.body[2]) == ["net.conv2", "41.2", "56.9", "int8"]
    assert "net.conv2 has the largest error" in sqnr.text


def test_shares_are_of_the_network_before_pruning() -> None:
    """They were those of the first recorded epoch, which may have pruned already."""
    wide = Layers({name: 2 * width for name, width in WIDTHS.items()})
    kept, channels, _ = layer_drawings(replace(full_card(), unpruned=wide), "run-1")
    assert "as a share of what it had before pruning" in kept.text
    assert channels.table
    assert channels.table.body[0][1] == "50%"
    assert "after epoch 0" in layer_drawings(full_card(), "run-1")[0].text


@pytest.mark.parametrize(("epochs", "why"), [(0, "no history"), (1, "of one epoch alone")])
def test_why_there_are_no_layers(epochs: int, why: str) -> None:
    card = replace(full_card(), history=full_card().history[:epochs])
    kept, channels, _ = layer_drawings(card, "run-1")
    assert why in kept.absent
    assert why in channels.absent


def test_float_weights_have_their_reasons() -> None:
    table = float_table(full_card())
    assert table
    assert [*map(list, table.body)] == [["net.head.lstm", "40.0%", "lstm has no int8 form here"]]
    assert float_table(Card("run", (), {})) is None
