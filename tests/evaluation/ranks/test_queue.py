"""Parts of a work, each done by the process that is free."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lit_compress.errors import ProcessError, ScanError
from lit_compress.evaluation.ranks.queue import is_same, share_out

from .threads import Threads


def test_each_part_is_done_once_and_known_to_all(three: Threads) -> None:
    done: list[tuple[int, int]] = []
    all_busy = threading.Barrier(3)

    def work(trainer: Any) -> dict[int, bytes]:
        known: dict[int, bytes] = {}

        def part(number: int) -> bytes:
            if number < 3:
                all_busy.wait(20)  # each process takes one of the first three
            done.append((number, trainer.rank))
            return str(number).encode()

        share_out(trainer, 7, part, known.__setitem__, "it counts")
        return known

    expected = {number: str(number).encode() for number in range(7)}
    assert three.run(work) == [expected] * 3
    assert sorted(number for number, _ in done) == list(range(7))
    assert {rank for _, rank in done} == {0, 1, 2}


def test_one_that_fails_ends_all(three: Threads) -> None:
    def work(trainer: Any) -> None:
        def part(number: int) -> bytes:
            if number == 2:
                raise ScanError("no metric")
            return b""

        share_out(trainer, 4, part, lambda number, result: None, "it tries")

    found = three.run(work)
    kinds = sorted(type(error).__name__ for error in found)
    assert kinds == ["ProcessError", "ProcessError", "ScanError"]
    assert all("ScanError: no metric" in str(e) for e in found if isinstance(e, ProcessError))


def test_one_process_does_them_in_order() -> None:
    done: list[int] = []
    trainer: Any = object()
    share_out(trainer, 3, lambda number: b"%d" % number, lambda n, r: done.append(int(r)), "")
    assert done == [0, 1, 2]
    assert is_same(trainer, "anything")


@pytest.mark.parametrize("differs", [False, True])
def test_values_that_differ_are_seen_by_all(three: Threads, differs: bool) -> None:
    found = three.run(lambda trainer: is_same(trainer, str(differs and trainer.rank == 2)))
    assert found == [not differs] * 3
