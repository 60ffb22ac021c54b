"""Figures over the epochs."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import pytest

from lit_compress.artifact import Card
from lit_compress.artifact.history import Epoch, Layers
from lit_compress.report.figures import kept_channels_heat_map, metric_over_epochs
from lit_compress.report.figures.epochs import channel_shares
from lit_compress.report.figures.layers import kept
from report.cards import STEPS, full_card


def test_the_metric_the_share_and_the_time_are_drawn() -> None:
    metric, reached, seconds = metric_over_epochs(full_card()).axes
    history = full_card().history
    line = metric.lines[0]
    assert [*line.get_xdata()] == [0, 1, 2, 3, 4, 5, 7, 8]
    assert [*line.get_ydata()] == [e.metric for e in history if e.metric is not None]
    assert [*reached.lines[0].get_ydata()] == [e.reached[0] for e in history]
    assert [bar.get_height() for bar in seconds.patches] == [e.seconds for e in history]
    for axes in (metric, reached, seconds):
        upright = [x.get_xdata()[0] for x in axes.lines if len(set(x.get_xdata())) == 1]
        assert {*STEPS} <= {*upright}


def test_parts_without_data_are_left_out() -> None:
    history = tuple(Epoch(number, 1.0, 10) for number in range(3))
    figure = metric_over_epochs(Card("run", (), {}, history=history))
    assert [axes.get_ylabel() for axes in figure.axes] == ["seconds"]
    assert metric_over_epochs(Card("run", (), {})) is None


def test_more_callbacks_than_the_card_names() -> None:
    history = tuple(Epoch(n, 1.0, 10, reached=(0.1,) * (n + 1)) for n in range(3))
    axes = metric_over_epochs(Card("run", (), {}, history=history)).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["callback 1", "callback 2", "callback 3", "target"]


def test_the_heat_map_has_a_cell_for_each_layer_and_epoch() -> None:
    figure = kept_channels_heat_map(full_card())
    cells = figure.axes[0].collections[0].get_array()
    assert cells.shape == (4, 4)  # before the steps, and from each of the three on
    assert cells[0, 0] == 1
    assert cells[0, -1] == 7 / 16


def test_shares_are_those_of_the_network_before_pruning() -> None:
    """A network that was pruned in its first epoch was drawn as if it had kept everything."""
    history = (Epoch(0, 1.0, 9, pruned=True, layers=Layers({"a": 4}, {"a": 8})),)
    card = Card("run", (), {}, history=history, unpruned=Layers({"a": 16}, {"a": 64}))
    assert channel_shares(card) == {"a": [0.25]}
    assert kept(card, "weights") == {"a": (64, 8)}
    mesh = kept_channels_heat_map(card).axes[0].collections[0]
    assert mesh.get_array().tolist() == [[0.25]]


@pytest.mark.parametrize("count", [0, 1])
def test_no_heat_map_of_fewer_than_two_epochs(count: int) -> None:
    assert kept_channels_heat_map(replace(full_card(), history=full_card().history[:count])) is None


def test_the_users_settings_of_matplotlib_stay() -> None:
    with mpl.rc_context({"font.size": 31}):
        metric_over_epochs(full_card())
        assert mpl.rcParams["font.size"] == 31
