"""What all workers share: the description of a study, and which trials count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lit_compress.errors import SearchError
from lit_compress.search.objectives import Objective
from lit_compress.search.study import (
    counts,
    description,
    first_difference,
    is_too_many,
    open_study,
    run_again,
)

from .told import TARGET, WIDTH, optuna, settings, study, trial, whole_config


def test_a_second_worker_with_other_settings_is_refused(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    search = settings(tmp_path)
    made = open_study(storage, search, whole_config(), 0)
    assert open_study(storage, search, whole_config(), 1)._study_id == made._study_id
    other = settings(tmp_path, WIDTH)
    with pytest.raises(SearchError, match=r"searches something else: ranges\.callbacks.* absent"):
        open_study(storage, other, whole_config(), 0)
    changed = whole_config()
    changed["data"]["init_args"]["batch_size"] = 16
    with pytest.raises(SearchError, match=r"fit\.data\.init_args\.batch_size is 8 there, and 16"):
        open_study(storage, search, changed, 0)


def test_a_study_that_is_not_of_this_program(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    directions = ["maximize", "minimize"]
    made = optuna.create_study(study_name="search", storage=storage, directions=directions)
    made.add_trial(trial("COMPLETE", [1.0, 1.0]))
    with pytest.raises(SearchError, match="its description is None there"):
        open_study(storage, settings(tmp_path), whole_config(), 0)


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, ("a.1.b", 2, 3)),
        ({"a": [1]}, {"a": [1, 2]}, ("a", [1], [1, 2])),
        ({"a": 1}, {}, ("a", 1, "absent")),
        ({"a": (1,)}, {"a": (1,)}, None),
    ],
)
def test_the_first_difference(was: Any, now: Any, expected: Any) -> None:
    assert first_difference(was, now) == expected


def test_a_description_is_the_same_after_it_was_stored(tmp_path: Path) -> None:
    """Storages hold JSON, in which a tuple is a list."""
    import json

    found = description(settings(tmp_path, WIDTH, TARGET), whole_config())
    assert first_difference(json.loads(json.dumps(found)), found) is None


@pytest.mark.parametrize(
    ("sampler", "kind"), [("tpe", "TPESampler"), ("nsga2", "NSGAIISampler"), ("random", "RandomS")]
)
def test_samplers(sampler: str, kind: str, tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    made = open_study(storage, settings(tmp_path, sampler=sampler), whole_config(), 0)
    assert type(made.sampler).__name__.startswith(kind)


def test_trials_of_killed_workers_do_not_count() -> None:
    trials = [
        trial("COMPLETE", [1.0, 1.0]),
        trial("PRUNED"),
        trial("RUNNING"),
        trial("FAIL"),
        trial("FAIL", reason="out of memory"),
        trial("WAITING"),
    ]
    assert list(map(counts, trials)) == [True, True, True, False, True, False]
    numbered = study(*trials).trials
    assert not is_too_many(numbered, 4, 4)
    assert is_too_many(numbered, 4, 3)


def test_a_trial_is_run_again_with_the_same_values() -> None:
    made = study()
    first = made.ask()
    value = WIDTH.suggest(first)
    with pytest.raises(SearchError, match="--again: trial 5 does not run; these do: 0"):
        run_again(made, [5])
    run_again(made, [0])
    second = made.ask()
    assert (second.number, WIDTH.suggest(second)) == (1, value)
    assert [one.state.name for one in made.trials] == ["FAIL", "RUNNING"]


def test_one_objective_has_the_pruner_of_optuna(tmp_path: Path) -> None:
    from dataclasses import replace

    search = replace(settings(tmp_path), objectives=(Objective("val_acc", True),))
    made = open_study(optuna.storages.InMemoryStorage(), search, whole_config(), 0)
    assert isinstance(made.pruner, optuna.pruners.MedianPruner)
