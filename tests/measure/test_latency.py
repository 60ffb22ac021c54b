"""On a clock that only the runners move, so that every figure is known beforehand."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_compress.errors import InvalidArgumentError
from lit_compress.measure import Latency, Speedup, compare

CLOCK = "lit_compress.timing.in_turn.perf_counter"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def runner(self, seconds: float | Callable[[], float], name: str = "") -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += seconds() if callable(seconds) else seconds

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(CLOCK, made)
    return made


def pair(times: dict[str, Latency], name: str = "b") -> Speedup:
    (speedup,) = times[name].speedups
    return speedup


def test_figures(clock: Clock) -> None:
    runners = {"a": clock.runner(3 / 8), "b": clock.runner(1 / 8)}
    times = compare(runners, batch=7, threads=2, rounds=12, confidence=0.9)
    assert times["a"] == Latency(3 / 8, (3 / 8, 3 / 8), 7, 2, 12, 0.9)
    assert times["b"].seconds == 1 / 8
    speedup = pair(times)
    assert (speedup.over, speedup.ratio, speedup.significant) == ("a", 3.0, True)
    assert speedup.interval == pytest.approx((3 / 1.005, 3 * 1.005))


@pytest.mark.parametrize(
    ("other", "significant"),
    [(1.0, False), (1.004, False), (0.996, False), (1.02, True), (0.98, True)],
)
def test_less_than_the_place_in_memory_makes_is_no_difference(
    clock: Clock, other: float, significant: bool
) -> None:
    times = compare({"a": clock.runner(1.0), "b": clock.runner(other)}, rounds=10)
    assert pair(times).significant is significant
    assert pair(times).ratio == pytest.approx(1 / other)


def test_a_runner_differs_from_itself_in_less_than_5_of_100_noisy_runs() -> None:
    found = 0
    for seed in range(60):
        random, clock = np.random.default_rng(1000 + seed), Clock()
        run = clock.runner(lambda random=random: float(random.lognormal(0, 0.3)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CLOCK, clock)
            found += pair(compare({"a": run, "b": run}, rounds=30, seed=seed)).significant
    assert found <= 3


def test_drift_of_the_machine_falls_on_all_alike(clock: Clock) -> None:
    slower = iter(np.linspace(1, 2, 2000))

    def drifting(seconds: float) -> Callable[[], None]:
        return clock.runner(lambda: seconds * next(slower))

    times = compare({"a": drifting(0.3), "b": drifting(0.1)}, rounds=60)
    assert pair(times).ratio == pytest.approx(3, rel=0.01)
    assert times["a"].interval[1] / times["a"].interval[0] > 1.01


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(0, 0.5), st.integers(10, 20))
def test_intervals_hold_their_median(seed: int, ratio: float, noise: float, rounds: int) -> None:
    clock, random = Clock(), np.random.default_rng(seed)

    def run(seconds: float) -> Callable[[], None]:
        return clock.runner(lambda: seconds * float(random.lognormal(0, noise)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CLOCK, clock)
        times = compare({"a": run(ratio), "b": run(1.0)}, rounds=rounds, seed=seed)
    for latency in times.values():
        assert 0 < latency.interval[0] <= latency.seconds <= latency.interval[1]
    low, high = pair(times).interval
    assert low < pair(times).ratio < high
    assert pair(times).significant == (low > 1 or high < 1)


def test_real_sleeps() -> None:
    runners = {"slow": lambda: time.sleep(0.015), "fast": lambda: time.sleep(0.005)}
    times = compare(runners, rounds=10, warmup=0)
    assert pair(times, "fast").significant
    assert 1.5 < pair(times, "fast").ratio < 6
    assert times["fast"].seconds >= 0.005


def test_fast_runners_fill_a_slice_and_warm_up(clock: Clock) -> None:
    compare(
        {"a": clock.runner(2**-10, "a"), "b": clock.runner(2**-4, "b")},
        rounds=10,
        warmup=0.25,
        slice_seconds=2**-7,
    )
    assert clock.calls.count("a") == 256 + 10 * (1 + 8)
    assert clock.calls.count("b") == 4 + 10 * (1 + 1)


def test_the_first_slow_call_does_not_count(clock: Clock) -> None:
    first = itertools.chain([50.0], itertools.repeat(1 / 4))
    times = compare({"a": clock.runner(lambda: next(first))}, rounds=10, warmup=0)
    assert times["a"].interval == (1 / 4, 1 / 4)
    assert times["a"].speedups == ()


def orders(seed: int) -> list[tuple[str, ...]]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CLOCK, clock)
        runners = {name: clock.runner(1.0, name) for name in "abc"}
        compare(runners, rounds=20, warmup=0, seed=seed)
    timed = clock.calls[6:]  # after two calls each to warm up
    assert timed[::2] == timed[1::2]
    return [tuple(timed[start : start + 6 : 2]) for start in range(0, len(timed), 6)]


def test_each_round_runs_all_in_an_order_drawn_anew() -> None:
    drawn = orders(0)
    assert len(drawn) == 20
    assert {frozenset(order) for order in drawn} == {frozenset("abc")}
    assert len(set(drawn)) > 3
    assert orders(0) == drawn != orders(1)


def test_baselines(clock: Clock) -> None:
    runners = {name: clock.runner(seconds) for name, seconds in zip("abc", (4, 2, 1), strict=True)}
    times = compare(runners, rounds=10)
    assert [[s.over for s in times[name].speedups] for name in "abc"] == [[], ["a"], ["a"]]
    times = compare(runners, rounds=10, baselines={"c": ("a", "b")})
    assert [(s.over, s.ratio) for s in times["c"].speedups] == [("a", 4), ("b", 2)]
    assert times["a"].speedups == times["b"].speedups == ()
    assert list(times) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 9}, "rounds=9"),
        ({"threads": 0}, "threads=0"),
        ({"batch": 0}, "batch=0"),
        ({"baselines": {"a": ("c",)}}, r"no runner named \['c'\]"),
        ({"baselines": {"c": ("a",)}}, r"no runner named \['c'\]"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], message: str) -> None:
    called = []
    with pytest.raises(InvalidArgumentError, match=message):
        compare({"a": lambda: called.append(1)}, **options)
    assert not called


@pytest.mark.parametrize("confidence", [-0.5, 0, 1.5])
def test_confidence_that_cannot_be(confidence: float) -> None:
    """-0.5 gave an interval with its ends swapped; 1.5 numpy's error, after all was timed."""
    with pytest.raises(InvalidArgumentError, match="confidence"):
        compare({"a": lambda: None}, rounds=10, warmup=0, confidence=confidence)


def test_no_runner() -> None:
    with pytest.raises(InvalidArgumentError, match="at least one runner"):
        compare({})


def test_torch_threads_are_set_and_put_back() -> None:
    torch.set_num_threads(2)
    seen = set()
    compare({"a": lambda: seen.add(torch.get_num_threads())}, threads=1, rounds=10, warmup=0)
    assert seen == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("ratio", "significant", "text"),
    [
        (1.5, True, "1.50x"),
        (0.5, True, "0.50x"),
        (12.34, True, "12.3x"),
        (1.3, False, "no difference"),
    ],
)
def test_speedup_as_text(ratio: float, significant: bool, text: str) -> None:
    assert str(Speedup("a", ratio, (0.9, 20), significant)) == text
