"""Figures with a row for each layer."""

from __future__ import annotations

from dataclasses import replace

from lit_compress.artifact import Card, Fidelity, LayerFidelity, Variant
from lit_compress.artifact.history import Layers
from lit_compress.report.figures import kept_bars, sqnr_bars
from lit_compress.report.figures.layers import MOST_LAYERS
from report.cards import full_card


def labels(figure: object) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]  # type: ignore[attr-defined]


def with_layers(*layers: LayerFidelity) -> Card:
    return Card("run", (Variant("int8", 1, 1, fidelity=Fidelity(1.0, 1.0, 1, layers=layers)),), {})


def test_each_layer_has_its_sqnr_and_float_ones_are_named() -> None:
    figure = sqnr_bars(full_card())
    assert labels(figure) == [
        "net.input",
        "net.conv1",
        "net.conv2",
        "net.head.lstm (float)",
        "net.fc",
    ]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [
        62.5,
        41.25,
        52.3,
        49,
        61.5,
        56.9,
    ]


def test_of_many_layers_the_worst_are_drawn_in_their_order() -> None:
    many = [LayerFidelity(str(n), float(n % 50), None) for n in range(100)]
    names = labels(sqnr_bars(with_layers(*many, LayerFidelity("f", None, None, float=True))))
    assert names == [*map(str, range(15)), *map(str, range(50, 64)), "f (float)"]
    assert len(names) == MOST_LAYERS


def test_kept_shares() -> None:
    figure = kept_bars(full_card())
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [7 / 16, 13 / 32, 26 / 64, 1, 7 / 16, 13 / 32, 26 / 64, 1]


def test_layers_that_were_all_zero_at_first_are_left_out() -> None:
    layers = full_card().history[0].layers
    assert layers
    zero = Layers({**layers.channels, "net.fc": 0}, layers.weights)
    figure = kept_bars(replace(full_card(), unpruned=zero))
    assert len(figure.axes[0].patches) == 7


def test_nothing_to_draw() -> None:
    assert sqnr_bars(with_layers(LayerFidelity("a", None, None))) is None
    assert kept_bars(Card("run", (), {})) is None
