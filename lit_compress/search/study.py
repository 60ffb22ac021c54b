"""The study that all workers share: one description, and a number of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lit_compress.errors import SearchError
from lit_compress.search.settings import Settings
from lit_compress.search.storage import quietly

#: Keys of what a study and its trials hold of ours.
SEARCH, REASON = "lit-compress", "reason"


def open_study(
    storage: Any, settings: Settings, config: Mapping[str, Any], seed: int | None
) -> Any:
    """Return the study of a search; it is made if the storage does not have it.

    Args:
        storage: The Optuna storage.
        settings: The search.
        config: The whole configuration of the fit.
        seed: Random seed of the sampler of this worker. Default: another one each time.

    Raises:
        SearchError: If the storage has a study of this name that searches something else.
    """
    import optuna

    with quietly():
        study = optuna.create_study(
            study_name=settings.name,
            storage=storage,
            sampler=_sampler(settings, seed),
            pruner=optuna.pruners.MedianPruner() if settings.stop else optuna.pruners.NopPruner(),
            directions=[objective.direction for objective in settings.objectives],
            load_if_exists=True,
        )
    described = description(settings, config)
    known = study.user_attrs.get(SEARCH)
    if known is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(SEARCH, described)
        known = study.user_attrs.get(SEARCH)  # of two workers at once, that of the second
    if (differing := first_difference(known, described)) is not None:
        key, was, now = differing
        raise SearchError(
            f"the study {settings.name!r} searches something else: {key} is {was} there, and "
            f"{now} here. Give another --name, or the settings that it began with"
        )
    return study


def description(settings: Settings, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that a trial depends on as plain values: it must be the same for all workers.

    Args:
        settings: The search.
        config: The whole configuration of the fit.
    """
    return {
        "ranges": {one.key: one.to_dict() for one in settings.ranges},
        "objectives": {one.name: one.direction for one in settings.objectives},
        "stop": settings.stop,
        "fit": dict(config),
    }


def first_difference(was: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Return the first key at which two descriptions differ, and both values; None if none does.

    Args:
        was: One description.
        now: The other one.
        key: Where in the descriptions these are.

    Example:
        >>> first_difference({"ranges": {"a": 1}}, {"ranges": {"a": 2}})
        ('ranges.a', 1, 2)
    """
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in [*was, *(name for name in now if name not in was)]:
            inner = f"{key}.{name}" if key else str(name)
            if name not in was or name not in now:
                return inner, was.get(name, "absent"), now.get(name, "absent")
            if (found := first_difference(was[name], now[name], inner)) is not None:
                return found
        return None
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = enumerate(zip(was, now, strict=True))
        found_in = (first_difference(a, b, f"{key}.{at}") for at, (a, b) in pairs)
        return next((found for found in found_in if found is not None), None)
    return None if was == now else (key or "its description", was, now)


def counts(trial: Any) -> bool:
    """Tell whether a trial is one of those that the study is to have.

    Those of killed or stopped workers, and those that one worker too many began, are not.

    Args:
        trial: An ``optuna.trial.FrozenTrial``.
    """
    from optuna.trial import TrialState

    if trial.state == TrialState.FAIL:
        return REASON in trial.user_attrs
    return trial.state in (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)


def is_too_many(trials: Sequence[Any], number: int, total: int) -> bool:
    """Tell whether a trial is beyond those that a study is to have.

    Two workers may ask for the last trial at the same moment: the one with the larger number has
    one too many.

    Args:
        trials: The trials of the study.
        number: Number of the trial.
        total: How many trials the study is to have.
    """
    return sum(counts(trial) for trial in trials if trial.number < number) >= total


def running(trials: Sequence[Any]) -> list[int]:
    """Return the numbers of the trials that run now, or whose worker was killed."""
    from optuna.trial import TrialState

    return [trial.number for trial in trials if trial.state == TrialState.RUNNING]


def run_again(study: Any, numbers: Sequence[int]) -> None:
    """Take trials for those of killed workers: their values are tried again.

    Args:
        study: The Optuna study.
        numbers: Numbers of the trials.

    Raises:
        SearchError: If one of them does not run.
    """
    from optuna.trial import TrialState

    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for number in numbers:
        if number not in running(list(trials.values())):
            known = ", ".join(map(str, running(list(trials.values())))) or "none"
            raise SearchError(f"--again: trial {number} does not run; these do: {known}")
        study.tell(number, state=TrialState.FAIL)
        study.enqueue_trial(trials[number].params)


def _sampler(settings: Settings, seed: int | None) -> Any:
    from optuna import samplers

    if settings.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    if settings.sampler == "nsga2":
        return samplers.NSGAIISampler(population_size=settings.population, seed=seed)
    return samplers.TPESampler(seed=seed)
