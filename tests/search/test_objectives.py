"""What is compared: what a search file names, what the card has, what a fit must measure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from lit_compress.artifact import Card, Timing
from lit_compress.callbacks import CompressionReport, FilterPruning, PostTrainingQuantization
from lit_compress.errors import SearchError
from lit_compress.search.objectives import Objective, check_objectives, read_objectives

from .told import OBJECTIVES, card


def test_objectives_of_a_file() -> None:
    given = ["val_acc", {"metric": "score", "mode": "min"}][:1]
    assert read_objectives([*given, "bytes", "macs", "parameters", "latency"]) == (
        Objective("val_acc", True),
        *(Objective(name, False) for name in ("bytes", "macs", "parameters", "latency")),
    )
    assert read_objectives([{"metric": "score", "mode": "min"}]) == (Objective("score", False),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "objectives: expected a list, got None: name a metric"),
        ([3], "objectives: 3 is none"),
        ([{"name": "val_acc"}], "is none: name a metric"),
        (["val_acc", "val_acc"], "val_acc is given twice"),
        (["val_acc", "val_loss"], "val_acc and val_loss are two"),
        (["score"], "the name 'score' does not say whether more is better: write"),
        ([{"metric": "bytes", "mode": "max"}], "bytes is what a network costs"),
        ([{"metric": "score", "mode": "most"}], "mode is max or min"),
    ],
)
def test_objectives_that_are_none(given: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        read_objectives(given)


def test_the_figures_are_those_of_the_network_that_is_deployed() -> None:
    found = card(0.9, 123)
    assert [one.value(found) for one in OBJECTIVES] == [0.9, 123.0]
    timed = replace(found.variants[-1], latency=Timing("onnx", 1, 1, 0.25, (0.2, 0.3), 0.95, 9))
    timed_card = Card("digits", (found.variants[0], timed), environment={})
    assert Objective("latency", False).value(timed_card) == 0.25


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Objective("val_loss", False), "the card has None for val_loss of int8"),
        (Objective("macs", False), "None for macs of int8; no MACs of x"),
        (Objective("latency", False), "None for latency"),
        (Objective("val_acc", True), "has nan for val_acc"),
    ],
)
def test_a_figure_that_a_card_does_not_have(objective: Objective, message: str) -> None:
    found = card(float("nan"), 5)
    last = replace(found.variants[-1], note="no MACs of x")
    with pytest.raises(SearchError, match=message):
        objective.value(Card("digits", (found.variants[0], last), environment={}))


@pytest.mark.parametrize(
    ("callbacks", "objectives", "message"),
    [
        ([FilterPruning(0.5)], OBJECTIVES, "objectives are read from the card of a fit: add"),
        ([CompressionReport("val_loss")], OBJECTIVES, "measures val_loss, not val_acc: set its"),
        ([PostTrainingQuantization("val_acc")] * 2, OBJECTIVES, "2 int8 files, and a search"),
        (
            [PostTrainingQuantization("val_acc")],
            (Objective("latency", False),),
            "latency is measured by CompressionReport: add it",
        ),
    ],
)
def test_a_fit_that_does_not_measure_them(
    callbacks: list[Callback], objectives: tuple[Objective, ...], message: str
) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=callbacks)
    with pytest.raises(SearchError, match=message):
        check_objectives(objectives, trainer)
