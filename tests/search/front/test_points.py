"""The points of a front."""

from __future__ import annotations

from typing import Any

from lit_compress.search.front.points import front_of
from lit_compress.search.objectives import Objective
from lit_compress.search.space import Space
from lit_compress.search.trial import ARTIFACT, HOST

from ..told import OBJECTIVES, WIDTH, optuna, study, whole_config


def ended(*values: float, width: int = 3) -> Any:
    return optuna.trial.create_trial(
        values=values,
        params={WIDTH.key: width},
        distributions={WIDTH.key: optuna.distributions.IntDistribution(1, 9)},
        user_attrs={ARTIFACT: "/a", HOST: "h"},
    )


def test_of_equal_trials_the_first_is_taken() -> None:
    made = study(ended(0.5, 9), ended(0.9, 20, width=7), ended(0.5, 9), ended(0.4, 9))
    found = front_of(made, Space.of(whole_config(), (WIDTH,)), OBJECTIVES)
    assert [(one.number, one.values) for one in found] == [(1, (0.9, 20.0)), (0, (0.5, 9.0))]
    assert (found[0].settings, found[0].artifact, found[0].host) == ({WIDTH.key: 7}, "/a", "h")


def test_the_best_by_the_first_objective_comes_first() -> None:
    objectives = (Objective("val_loss", False), Objective("bytes", False))
    made = study(ended(0.9, 1), ended(0.1, 5), directions=["minimize", "minimize"])
    found = front_of(made, Space.of(whole_config(), (WIDTH,)), objectives)
    assert [one.values[0] for one in found] == [0.1, 0.9]
