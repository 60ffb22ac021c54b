"""Waiting outside of collective operations."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from lit_compress.errors import ProcessError
from lit_compress.evaluation.ranks import board
from lit_compress.evaluation.ranks.board import Board, has_others

from .threads import Threads


def test_a_note_is_waited_for() -> None:
    threads = Threads(3)

    def work(trainer: Any) -> bytes:
        own = threads.board("a")
        if trainer.rank == 0:
            time.sleep(0.05)
            own.put("note", b"done")
        return own.read("note")

    assert threads.run(work) == [b"done"] * 3


def test_all_come_before_one_goes() -> None:
    threads = Threads(3)
    come = []

    def work(trainer: Any) -> int:
        time.sleep(0.02 * trainer.rank)
        come.append(trainer.rank)
        threads.board("a").meet("here")
        return len(come)

    assert threads.run(work) == [3, 3, 3]


def test_boards_of_other_names_have_other_notes() -> None:
    store = dist.HashStore()
    one, other = (Board(store, 0, 2, name, "it works") for name in "ab")
    one.put("note", b"1")
    assert (one.has("note"), other.has("note")) == (True, False)
    assert [one.count("n"), one.count("n"), other.count("n"), one.count("n", 0)] == [1, 2, 1, 2]


def test_a_store_that_does_not_answer_is_the_end() -> None:
    def check(keys: list[str]) -> bool:
        raise RuntimeError("Connection was likely closed")

    lost = Board(SimpleNamespace(check=check), 2, 3, "a", "it converts the network")
    with pytest.raises(ProcessError, match=r"process 2 .* \(it converts the network\), and cannot"):
        lost.read("note")


def test_it_says_what_it_waits_for_and_gives_up_at_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(board, "QUIET", 0.01)
    monkeypatch.setattr(board, "PATIENCE", 0.2)
    caplog.set_level(logging.INFO)
    waiting = Board(dist.HashStore(), 1, 4, "a", "it converts the network")
    with pytest.raises(ProcessError, match=r"process 1 .* seems to hang \(it converts"):
        waiting.read("note")
    said = [record.message for record in caplog.records]
    assert said[0] == "3 processes have waited 0 s for the first one: it converts the network"
    assert 2 <= len(said) <= 6, "each time after twice as long"


def test_one_process_has_no_others() -> None:
    assert not has_others(SimpleNamespace(world_size=1))  # type: ignore[arg-type]
    assert not has_others(SimpleNamespace(world_size=2))  # type: ignore[arg-type]
