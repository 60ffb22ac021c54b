"""Fits that train nothing: what they reach is told by their settings. And studies in memory."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, Trainer

from lit_compress.artifact import Card, Metric, Variant
from lit_compress.artifact.write import write_card
from lit_compress.callbacks import CompressionReport
from lit_compress.errors import SearchError
from lit_compress.search.objectives import Objective
from lit_compress.search.ranges import Range
from lit_compress.search.settings import Settings

optuna = pytest.importorskip("optuna", reason="the extra search is not installed")

OBJECTIVES = (Objective("val_acc", True), Objective("bytes", False))
WIDTH = Range("model.width", low=1, high=9)
TARGET = Range("callbacks.FilterPruning.target", low=0.0, high=0.9)


def whole_config() -> dict[str, Any]:
    """Return a configuration as jsonargparse writes it, with the parts that a search looks at."""
    callbacks = [
        {"class_path": "lit_compress.callbacks.FilterPruning", "init_args": {"target": 0.5}},
        {"class_path": "lit_compress.callbacks.CompressionReport", "init_args": {"dirpath": None}},
    ]
    return {
        "seed_everything": 0,
        "trainer": {"callbacks": callbacks, "logger": False, "default_root_dir": None},
        "model": {"class_path": "own.Net", "init_args": {"width": 4, "optimizer": None}},
        "data": {"class_path": "own.Data", "init_args": {"batch_size": 8}},
        "ckpt_path": None,
    }


class Told:
    """Writes the card of a fit whose metric and bytes follow from its width and pruned share.

    Args:
        trouble: Called before each fit with its width.
    """

    def __init__(self, trouble: Callable[[int], None] = lambda _: None) -> None:
        self.config = whole_config()
        self.trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[CompressionReport(monitor="val_acc")],
        )
        self.trouble = trouble
        self.ran: list[int] = []

    def build(self, config: Mapping[str, Any]) -> None:
        if config["model"]["init_args"]["width"] > 9:
            raise SearchError("the network has 9 filters at most")

    def run(self, config: Path, callbacks: Sequence[Callback]) -> None:
        content = yaml.safe_load(config.read_text("utf-8"))
        width = content["model"]["init_args"]["width"]
        share = content["trainer"]["callbacks"][0]["init_args"]["target"]
        self.ran.append(width)
        print(f"width {width}")
        logging.getLogger("lightning.pytorch").info("fitted")
        self.trouble(width)
        folder = Path(content["trainer"]["default_root_dir"]) / "artifact"
        folder.mkdir()
        (folder / "weights").write_bytes(bytes(width))
        write_card(folder, card(1 - share / width, round(100 * width * (1 - share))))

    def explain(self, error: Exception) -> str:
        return str(error)


def card(accuracy: float, size: int, name: str = "val_acc") -> Card:
    """Return a card of two variants, of which the second has a metric and bytes."""
    last = Variant("int8", size, size, bytes=size, metric=Metric(name, accuracy, "val", 10))
    return Card("digits", (Variant("dense", 1000, 1000), last), environment={})


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the table of the front of a search."""
    with (folder / "front.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def settings(folder: Path, *ranges: Range, **given: Any) -> Settings:
    """Return a search of a folder that draws at random."""
    chosen: dict[str, Any] = {"trials": 6, "sampler": "random", "dirpath": str(folder)} | given
    return Settings("search.yaml", ranges or (WIDTH, TARGET), OBJECTIVES, **chosen)


def study(*trials: Any, directions: Sequence[str] = ("maximize", "minimize")) -> Any:
    """Return a study in memory with these trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(directions=directions)
    made.add_trials(trials)
    return made


def trial(state: str, values: Sequence[float] | None = None, **attributes: Any) -> Any:
    """Return a trial that a study takes."""
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[state], values=values, user_attrs=attributes
    )
