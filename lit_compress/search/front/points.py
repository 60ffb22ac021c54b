"""The trials that no other trial surpasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_compress.search.objectives import Objective
from lit_compress.search.space import Space
from lit_compress.search.trial import ARTIFACT, HOST


@dataclass(frozen=True)
class Point:
    """One trial of the front.

    Attributes:
        number: Number of the trial in the study.
        values: The objectives, in their order.
        settings: By setting, the value that it was fitted with.
        artifact: Folder of its artefact.
        host: Name of the machine that has the folder.
    """

    number: int
    values: tuple[float, ...]
    settings: Mapping[str, Any]
    artifact: str
    host: str

    def config(self) -> str:
        """Return the name of the file with its config."""
        return f"trial-{self.number:05}.yaml"


def front_of(study: Any, space: Space, objectives: Sequence[Objective]) -> list[Point]:
    """Return the trials that no other surpasses in all objectives, the best by the first one first.

    Of several with equal objectives, the first is returned.

    Args:
        study: The Optuna study.
        space: The configuration of the fit, and what varies in it.
        objectives: The objectives of the study.
    """
    points: dict[tuple[float, ...], Point] = {}
    for trial in sorted(study.best_trials, key=lambda one: one.number):
        known, values = trial.user_attrs, tuple(trial.values)
        settings = space.values(trial.params)
        point = Point(trial.number, values, settings, known[ARTIFACT], known[HOST])
        points.setdefault(values, point)
    return sorted(points.values(), key=lambda p: p.values, reverse=objectives[0].maximize)


def shown(objective: Objective, value: float) -> str:
    """Return a value as a person reads it.

    Args:
        objective: What it is the value of.
        value: The value.

    Example:
        >>> shown(Objective("bytes", False), 483327.0), shown(Objective("val_acc", True), 0.95819)
        ('483,327', '0.9582')
    """
    if objective.name == "latency":
        return f"{value * 1000:.3g} ms"
    return f"{value:,.0f}" if objective.is_cost else f"{value:.4f}"
