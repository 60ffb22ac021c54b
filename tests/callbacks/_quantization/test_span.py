"""When fake quantisation begins, and when its ranges stay."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks._quantization.span import Span
from lit_compress.errors import ScheduleError


def run(epochs: int, *callbacks: Any, steps: int = 10) -> Any:
    for callback in callbacks:
        callback._resolved_schedule = callback.schedule.resolve(epochs)
    return SimpleNamespace(
        max_epochs=epochs,
        callbacks=list(callbacks),
        fast_dev_run=False,
        estimated_stepping_batches=epochs * steps if epochs > 0 else float("inf"),
    )


@pytest.mark.parametrize(
    ("epochs", "last", "first", "freeze"),
    [(10, None, 5, 9), (1, None, 0, 1), (2, None, 1, 2), (10, 3, 7, 9), (10, 8, 9, 10)],
)
def test_by_itself_it_takes_the_second_half_after_pruning(
    epochs: int, last: int | None, first: int, freeze: int
) -> None:
    pruners = [] if last is None else [FilterPruning(0.5, schedule=Schedule(0, last))]
    assert Span().resolve(run(epochs, *pruners)) == Span(first, freeze)


def test_steps_are_steps() -> None:
    found = Span(first_step=35).resolve(run(6))
    assert found == Span(freeze=5, first_step=35)
    at = SimpleNamespace(current_epoch=3, global_step=34)
    assert not found.has_begun(at)  # type: ignore[arg-type]
    at.global_step = 35
    assert found.has_begun(at)  # type: ignore[arg-type]
    assert str(found) == "step 35"
    frozen = Span(first=1, freeze_step=40)
    assert not frozen.is_frozen(at)  # type: ignore[arg-type]
    at.global_step = 40
    assert frozen.is_frozen(at)  # type: ignore[arg-type]


def test_a_run_without_an_end_needs_a_begin() -> None:
    with pytest.raises(ScheduleError, match="first or first_step"):
        Span().resolve(run(-1))
    assert Span(first=3).resolve(run(-1)) == Span(3, 4)
