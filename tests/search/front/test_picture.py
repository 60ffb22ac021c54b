"""The picture of a front."""

from __future__ import annotations

import pytest

from lit_compress.search.front.picture import draw
from lit_compress.search.front.points import Point
from lit_compress.search.objectives import Objective

from ..told import OBJECTIVES, study, trial

pytest.importorskip("matplotlib")


def test_trials_and_front_over_each_cost() -> None:
    objectives = (*OBJECTIVES, Objective("latency", False))
    trials = study(
        trial("COMPLETE", [0.9, 500.0, 0.1]),
        trial("COMPLETE", [0.5, 800.0, 0.2]),
        trial("PRUNED"),
        directions=["maximize", "minimize", "minimize"],
    ).trials
    front = [Point(0, (0.9, 500.0, 0.1), {}, "", "")]
    figure = draw(trials, front, objectives)
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert labels == [("bytes of the file", "val_acc"), ("seconds a call", "val_acc")]
    dots = [axes.collections[0].get_offsets().tolist() for axes in figure.axes]
    assert dots == [[[500.0, 0.9], [800.0, 0.5]], [[0.1, 0.9], [0.2, 0.5]]]
    assert [axes.lines[0].get_xydata().tolist() for axes in figure.axes] == [
        [[500.0, 0.9]],
        [[0.1, 0.9]],
    ]


def test_one_objective_over_the_trials() -> None:
    trials = study(trial("COMPLETE", [0.9]), directions=["maximize"]).trials
    figure = draw(trials, [Point(0, (0.9,), {}, "", "")], OBJECTIVES[:1])
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trial", "val_acc")
    assert axes.lines[0].get_xydata().tolist() == [[0.0, 0.9]]
