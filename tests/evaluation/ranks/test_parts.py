"""Parts of what the first process does, each done by one of the processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.ranks.parts import in_parts

from .threads import Threads

#: Which process did which part.
DONE: list[tuple[int, int]] = []


def squares(trainer: Any, numbers: Sequence[int], given: dict[str, Any]) -> list[int]:
    if trainer.rank == given.get("fails"):
        raise FileNotFoundError("no such image")
    DONE.extend((number, trainer.rank) for number in numbers)
    return [number**2 + given["more"] for number in numbers]


def shared(three: Threads, count: int, **given: Any) -> list[Any]:
    DONE.clear()
    return three.run(
        lambda trainer: on_rank_zero(
            trainer, lambda: in_parts(trainer, count, squares, {"more": 1} | given)
        )
    )


def test_each_part_is_done_by_one_and_its_result_is_in_order(three: Threads) -> None:
    assert shared(three, 8) == [[1, 2, 5, 10, 17, 26, 37, 50]] * 3
    assert sorted(DONE) == [(number, number % 3) for number in range(8)]


def test_few_parts_and_what_cannot_be_sent_stay_with_the_first(three: Threads) -> None:
    assert shared(three, 2) == [[1, 2]] * 3
    assert DONE == [(0, 0), (1, 0)]
    assert shared(three, 4, unknown=lambda: 1) == [[1, 2, 5, 10]] * 3
    assert {rank for _, rank in DONE} == {0}


def test_the_first_does_the_part_of_one_that_fails(
    three: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    """The files of one machine may be missing."""
    caplog.set_level(logging.INFO)
    assert shared(three, 4, fails=2) == [[1, 2, 5, 10]] * 3
    assert sorted(DONE) == [(0, 0), (1, 1), (2, 0), (3, 0)]
    assert "process 2 failed in its part (FileNotFoundError: no such image)" in caplog.text


def test_an_error_of_the_first_is_raised(three: Threads) -> None:
    first, *_ = shared(three, 4, fails=0)
    assert isinstance(first, FileNotFoundError)


def test_a_run_of_one_process_does_all() -> None:
    class Run:
        rank = 0

    trainer: Any = Run()
    assert in_parts(trainer, 3, squares, {"more": 0}) == [0, 1, 4]
