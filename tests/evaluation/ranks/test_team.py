"""What the first process asks the others to do while it works."""

from __future__ import annotations

from typing import Any

import pytest

from lit_compress.errors import ChannelError, ProcessError
from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.ranks.shares import Share
from lit_compress.evaluation.ranks.team import Failed, working_team

from .threads import Threads


def twice(trainer: Any, place: Share, given: int) -> tuple[int, int]:
    if given < 0:
        raise ValueError("less than nothing")
    return place.rank, 2 * given


def asked(trainer: Any, *given: Any) -> list[Any]:
    team = working_team(trainer)
    assert team is not None
    found = []
    for one in given:
        with team.asked(twice, one) as collect:
            found.append(None if collect is None else collect("own"))
    return found


def test_the_others_answer_as_often_as_they_are_asked(three: Threads) -> None:
    found = three.run(lambda trainer: on_rank_zero(trainer, lambda: asked(trainer, 4, 5)))
    assert found == [[["own", (1, 8), (2, 8)], ["own", (1, 10), (2, 10)]]] * 3


def test_one_that_fails_says_why(three: Threads) -> None:
    (first, *_) = three.run(lambda trainer: on_rank_zero(trainer, lambda: asked(trainer, -1)))
    assert first == [["own", *[Failed("ValueError: less than nothing")] * 2]]


def test_what_cannot_be_sent_is_not_asked(three: Threads) -> None:
    found = three.run(lambda trainer: on_rank_zero(trainer, lambda: asked(trainer, lambda: 1, 3)))
    assert found == [[None, ["own", (1, 6), (2, 6)]]] * 3


def test_an_error_in_the_own_part_lets_the_others_go(three: Threads) -> None:
    def work(trainer: Any) -> Any:
        def decide() -> None:
            team = working_team(trainer)
            assert team is not None
            with team.asked(twice, 1):
                raise ChannelError("nothing can go")

        return on_rank_zero(trainer, decide)

    assert [str(error) for error in three.run(work)] == ["nothing can go"] * 3


def test_any_error_of_the_first_ends_all_by_name(three: Threads) -> None:
    def decide() -> None:
        raise ZeroDivisionError("no luck")

    first, *others = three.run(lambda trainer: on_rank_zero(trainer, decide, "it divides"))
    assert isinstance(first, ZeroDivisionError)
    for error in others:
        assert isinstance(error, ProcessError)
        assert str(error) == "the first process failed (it divides): ZeroDivisionError: no luck"


def test_a_decision_within_another_is_of_the_first_alone(three: Threads) -> None:
    """It waited for ever: the others were not told of a second one."""

    def work(trainer: Any) -> Any:
        return on_rank_zero(trainer, lambda: [*on_rank_zero(trainer, lambda: [1]), 2])

    assert three.run(work) == [[1, 2]] * 3


def test_outside_of_a_work_nobody_can_be_asked() -> None:
    with pytest.raises(AssertionError):
        asked(object())
