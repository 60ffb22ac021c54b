"""One worker of a search: it runs trials until the study has enough."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lit_compress.errors import SearchError
from lit_compress.search._hopeless import rule
from lit_compress.search.front.picture import draw
from lit_compress.search.front.points import Point, front_of, shown
from lit_compress.search.front.table import TABLE, clear, write_front
from lit_compress.search.objectives import check_objectives
from lit_compress.search.places import LOG, check_places, claim, trial_folder
from lit_compress.search.settings import Settings
from lit_compress.search.space import Space, named
from lit_compress.search.storage import check_optuna, open_storage, quietly, without_heartbeat
from lit_compress.search.study import REASON, counts, open_study, run_again, running
from lit_compress.search.trial import FailedTrial, Fits, TooMany, TrialRunner
from lit_compress.sensitivity.figure import can_draw, save

#: Name of the picture, without ending.
PICTURE = "front"
#: After so many failed trials in a row a worker stops.
FAILURES = 3


@dataclass(frozen=True)
class Options:
    """What one worker does, and no other need do.

    Attributes:
        seed: Random seed of its sampler. Default: another one each time.
        again: Numbers of trials whose worker was killed, to run again.
        wait: Whether it waits for the trials of others, to run those again whose worker is killed.
    """

    seed: int | None = None
    again: tuple[int, ...] = ()
    wait: bool = True


def search(settings: Settings, fits: Fits, options: Options | None = None) -> list[Point]:
    """Run trials as one worker of a study, and write its front.

    Args:
        settings: The search.
        fits: What builds and runs a fit.
        options: What this worker does.

    Returns:
        The front of the study when the worker ended.

    Raises:
        SearchError: Before the first trial, if something is wrong with the search, the fit, or the
            study; and after three failed trials in a row.
    """
    options = options or Options()
    check_optuna()
    with named(settings.source):
        space = _checked_space(settings, fits)
    dirpath = Path(settings.dirpath)
    claim(dirpath, settings.name)
    storage = open_storage(settings.storage, dirpath, settings.heartbeat)
    study = open_study(storage, settings, space.config, options.seed)
    worker = _Worker(settings, space, study, fits.trainer, without_heartbeat(storage))
    with quietly():
        run_again(study, options.again)
        worker.begin()
        worker.work(TrialRunner(settings, space, fits), options.wait)
        return worker.end()


def _checked_space(settings: Settings, fits: Fits) -> Space:
    """Return what varies, if all that can be wrong before the first trial is right."""
    config, trainer = fits.config, fits.trainer
    seed = config["seed_everything"]
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise SearchError(
            f"seed_everything of the fit is {seed}: give a number, so that a point of the front "
            "can be fitted again"
        )
    if config.get("ckpt_path") is not None:
        raise SearchError("ckpt_path of the fit is given, and a trial begins anew: leave it out")
    if trainer.world_size > 1:
        raise SearchError(
            f"a trial runs in one process, and the fit has {trainer.world_size}: set "
            "trainer.devices to 1, and start several workers"
        )
    check_places(config)
    check_objectives(settings.objectives, trainer)
    space = Space.of(config, settings.ranges)
    space.check(fits.build)
    return space


@dataclass
class _Worker:
    """A worker at work."""

    settings: Settings
    space: Space
    study: Any
    trainer: Trainer
    no_heartbeat: str | None  # what the storage is that has none

    @property
    def dirpath(self) -> Path:
        return Path(self.settings.dirpath)

    def begin(self) -> None:
        """Say what is searched, and what is not done."""
        names = ", ".join(f"{one.direction} {one.name}" for one in self.settings.objectives)
        done, total = self._counted(), self.settings.trials
        print(f"study {self.settings.name!r}: {names}; {done} of {total} trials are there")
        same = self.space.choices_of_callbacks()
        early = rule(self.settings.objectives, self.trainer, same)
        print(early if self.settings.stop else "no trial is stopped early")
        if self.no_heartbeat is not None:
            print(
                f"{self.no_heartbeat} has no heartbeat in Optuna, so the trials of killed workers "
                "look as if they ran: name them with --again"
            )

    def work(self, runner: TrialRunner, wait: bool) -> None:
        """Run trials until the study has enough."""
        from optuna.storages import fail_stale_trials

        failures, waits = 0, False
        while True:
            if self.no_heartbeat is None:
                fail_stale_trials(self.study)
            if self._counted() < self.settings.trials:
                failures = 0 if self._ran(runner) else failures + 1
                if failures == FAILURES:
                    raise SearchError(
                        f"{FAILURES} trials in a row failed; the last one: {self._last_reason()}"
                    )
            elif self.no_heartbeat is None and wait and (others := self._running()):
                if not waits:
                    print(f"waiting for {len(others)} trials of other workers (--no-wait does not)")
                waits = True
                time.sleep(min(5, self.settings.heartbeat))
            else:
                break

    def _ran(self, runner: TrialRunner) -> bool:
        """Run one trial; tell whether it did not fail."""
        from optuna.exceptions import UpdateFinishedTrialError

        began: list[int] = []

        def noted(trial: Any) -> tuple[float, ...]:
            began.append(trial.number)
            return runner(trial)

        expected = (FailedTrial, TooMany)
        try:
            self.study.optimize(noted, n_trials=1, catch=expected, gc_after_trial=True)
        except (ValueError, UpdateFinishedTrialError):
            if not began or self._trial(began[0]).state.name == "RUNNING":
                raise
            print(f"trial {began[0]}: its heartbeat stopped, so another worker runs it again")
        trial = self._trial(began[0])
        points = self._write()
        self._say(trial, points)
        return trial.state.name != "FAIL" or REASON not in trial.user_attrs

    def _write(self) -> list[Point]:
        """Write the front as it is now, and remove what is not on it."""
        objectives, known = self.settings.objectives, None
        while (ended := self._ended()) != known:  # another worker may write an older front now
            points = front_of(self.study, self.space, objectives)
            write_front(self.dirpath, points, self.space, objectives)
            known = ended
        clear(self.dirpath, self.study.get_trials(deepcopy=False), points)
        return points

    def _say(self, trial: Any, points: Sequence[Point]) -> None:
        state, reason = trial.state.name, trial.user_attrs.get(REASON)
        if state == "FAIL" and reason is not None:
            log = trial_folder(self.dirpath, trial.number) / LOG
            print(f"trial {trial.number} failed: {reason} (see {log})")
        elif state == "PRUNED":
            print(f"trial {trial.number}: stopped early")
        elif state == "COMPLETE":
            on_front = any(point.number == trial.number for point in points)
            print(
                f"trial {trial.number}: {self._figures(trial.values)}"
                f"{'; on the front' if on_front else ''}"
            )

    def end(self) -> list[Point]:
        """Write the front and its picture, and print it."""
        points = self._write()
        trials = self.study.get_trials(deepcopy=False)
        states = [trial.state.name for trial in trials if counts(trial)]
        numbers = {state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")}
        print(
            f"{numbers['COMPLETE']} trials ended, {numbers['PRUNED']} were stopped early, "
            f"{numbers['FAIL']} failed; the front has {len(points)}:"
        )
        for point in points:
            print(f"  trial {point.number}: {self._figures(point.values)}")
        if others := self._running():
            again = " with --again and its number" if self.no_heartbeat else ""
            print(
                f"trials {', '.join(map(str, others))} run at other workers; if a worker was "
                f"killed, the same command{again} runs its trial again"
            )
        print(f"written to {self.dirpath / TABLE}")
        if not can_draw():
            print("no picture: pip install 'lit-compress[plots]'")
        elif points:
            save(draw(trials, points, self.settings.objectives), self.dirpath, PICTURE)
        return points

    def _figures(self, values: Sequence[float]) -> str:
        pairs = zip(self.settings.objectives, values, strict=True)
        return ", ".join(f"{one.name} {shown(one, value)}" for one, value in pairs)

    def _counted(self) -> int:
        return sum(map(counts, self.study.get_trials(deepcopy=False)))

    def _running(self) -> list[int]:
        return running(self.study.get_trials(deepcopy=False))

    def _ended(self) -> list[int]:
        trials = self.study.get_trials(deepcopy=False)
        return [trial.number for trial in trials if trial.state.name == "COMPLETE"]

    def _trial(self, number: int) -> Any:
        trials = self.study.get_trials(deepcopy=False)
        return next(trial for trial in trials if trial.number == number)

    def _last_reason(self) -> str:
        reasons = [t.user_attrs.get(REASON) for t in self.study.get_trials(deepcopy=False)]
        return next(str(reason) for reason in reversed(reasons) if reason is not None)
