"""On a clock that only the runners move, so that every figure is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import pytest

from lit_compress.benchmark import Options
from lit_compress.benchmark.limit import Kind
from lit_compress.benchmark.timed import Row, time_rows
from lit_compress.benchmark.work import Work
from lit_compress.timing.in_turn import Runner


class Fake:
    """A network whose calls take a known time."""

    kind, slots, macs = "ONNX file", (), None

    def __init__(self, name: str, seconds: float, clock: list[float]) -> None:
        self.name = name
        self._seconds = seconds
        self._clock = clock

    def runtimes(self, asked: Sequence[str]) -> tuple[str, ...]:
        return tuple(asked)

    def runner(self, runtime: str, threads: int, batch: int) -> Runner:
        def run() -> None:
            self._clock[0] += self._seconds * batch

        return run

    def inputs_text(self, batch: int) -> str:
        return "none"

    def work(self) -> Work:
        return Work(0, 0)

    def limit(self, runtime: str, threads: int, kind: Kind) -> float:
        return 1.0

    def with_threads(self, threads: int) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    for name in ("benchmark.timed", "timing.in_turn"):
        monkeypatch.setattr(f"lit_compress.{name}.perf_counter", lambda: now[0])
    return now


def test_figures(clock: list[float]) -> None:
    fast, slow = Fake("fast", 1 / 64, clock), Fake("slow", 1 / 16, clock)
    rows = [Row(0, fast, "onnxruntime", 1, 4), Row(1, slow, "onnxruntime", 1, 4)]
    found = time_rows(rows, Options(rounds=12))
    assert [row.seconds for row in found] == [1 / 16, 1 / 4]
    assert [row.interval for row in found] == [(1 / 16, 1 / 16), (1 / 4, 1 / 4)]
    assert [row.examples_per_second for row in found] == [64, 16]
    assert [row.rounds for row in found] == [12, 12]
    (speedup,) = found[0].speedups
    assert (speedup.over, speedup.ratio, speedup.significant) == ("onnxruntime", 4, True)
    assert found[1].speedups == ()


@pytest.mark.parametrize(("seconds", "rounds"), [(1000.0, 60), (60.0, 30), (1.0, 10)])
def test_the_time_limit_sets_the_rounds(clock: list[float], seconds: float, rounds: int) -> None:
    """One call is not timed, one is: a round takes two seconds."""
    (found,) = time_rows([Row(0, Fake("a", 1.0, clock), "x", 1, 1)], Options(seconds=seconds))
    assert found.rounds == rounds


def test_a_row_is_compared_in_its_own_runtime_or_else_in_any(clock: list[float]) -> None:
    one, other = Fake("one", 1.0, clock), Fake("other", 2.0, clock)
    both = [Row(place, net, name, 1, 1) for place, net in enumerate((one, other)) for name in "ab"]
    compared = [[s.over for s in row.speedups] for row in time_rows(both, Options(rounds=10))]
    assert compared == [["a"], ["b"], [], []]
    mixed = [Row(0, one, "pytorch", 1, 1), *both[2:]]
    compared = [[s.over for s in row.speedups] for row in time_rows(mixed, Options(rounds=10))]
    assert compared == [["a", "b"], [], []]
