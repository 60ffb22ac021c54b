from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress import Schedule
from lit_compress.errors import ScheduleError

SHAPES = st.sampled_from(["cubic", "linear", "one_shot"])


@given(st.integers(0, 20), st.integers(0, 30), st.integers(1, 7), SHAPES)
def test_share_rises_from_nothing_to_exactly_the_whole(
    first: int, length: int, every: int, shape: str
) -> None:
    schedule = Schedule(first, first + length, every, shape)  # type: ignore[arg-type]
    shares = [schedule.share(epoch) for epoch in range(first + length + 3)]
    assert shares == sorted(shares)
    assert all(share == 0 for share in shares[:first])
    assert 0 < shares[first] <= 1
    assert shares[first + length] == 1
    assert all(isinstance(share, Fraction) for share in shares)


def test_cubic_follows_zhu_and_gupta() -> None:
    schedule = Schedule(2, 5)
    expected = [1 - (1 - i / 4) ** 3 for i in range(1, 5)]
    assert [float(schedule.share(epoch)) for epoch in range(2, 6)] == pytest.approx(expected)


def test_linear_and_one_shot() -> None:
    linear = Schedule(0, 6, 2, "linear")
    assert list(linear.events()) == [0, 2, 4, 6]
    assert [float(linear.share(e)) for e in range(8)] == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1]
    once = Schedule(3, shape="one_shot").resolve(10)
    assert list(once.events()) == [3]


@pytest.mark.parametrize(
    ("epochs", "last"), [(1, 0), (2, 0), (3, 1), (5, 3), (6, 4), (30, 20), (100, 66)]
)
def test_last_defaults_to_two_thirds_and_leaves_an_epoch(epochs: int, last: int) -> None:
    assert Schedule().resolve(epochs).last == last


def test_a_late_first_step_is_the_last_too() -> None:
    assert list(Schedule(first=8).resolve(10).events()) == [8]


@pytest.mark.parametrize(
    ("schedule", "epochs", "message"),
    [
        (Schedule(0, 10), 5, "schedule.last is 10, but a run of 5 epochs"),
        (Schedule(0, 4), 5, "set schedule.last to 3 at most"),
        (Schedule(0, 0), 1, "a run of 1 epoch has no epoch after it"),
        (Schedule(7), 5, "schedule.first is 7, but the run has 5 epochs"),
        (Schedule(5, shape="one_shot"), 5, "schedule.first is 5"),
        (Schedule(), -1, "schedule.last must be given"),
        (Schedule(), None, "schedule.last must be given"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(
    schedule: Schedule, epochs: int | None, message: str
) -> None:
    with pytest.raises(ScheduleError, match=message):
        schedule.resolve(epochs)


def test_an_endless_run_takes_a_given_last() -> None:
    assert Schedule(1, 4).resolve(-1).last == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": -1}, "schedule.first must be a whole number of at least 0, got -1"),
        ({"first": 1.5}, "schedule.first"),
        ({"first": True}, "schedule.first"),
        ({"every": 0}, "schedule.every must be a whole number of at least 1"),
        ({"last": -2}, "schedule.last"),
        ({"first": 5, "last": 3}, "comes before"),
        ({"shape": "square"}, "must be one of cubic, linear, one_shot, got 'square'"),
    ],
)
def test_malformed_schedules_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Schedule(**arguments)


def test_events_before_resolve_are_refused() -> None:
    with pytest.raises(ScheduleError, match="resolve"):
        Schedule().events()


def test_earlier_moves_every_event_and_none_before_the_start() -> None:
    schedule = Schedule(4, 8, every=2)
    assert list(schedule.earlier(3).events()) == [1, 3, 5]
    assert [schedule.earlier(3).share(e) for e in range(6)] == [
        schedule.share(e) for e in range(3, 9)
    ]
    assert list(schedule.earlier(6).events()) == [0, 2]
    assert Schedule(3, shape="one_shot").earlier(9) == Schedule(0, shape="one_shot")
