"""One trial: an ordinary fit with other values, in a folder of its own."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from lightning.pytorch import Callback, Trainer

from lit_compress.files import write_whole
from lit_compress.search._hopeless import StopHopeless
from lit_compress.search.places import CONFIG, LOG, card_of, placed, trial_folder
from lit_compress.search.settings import Settings
from lit_compress.search.space import Space
from lit_compress.search.study import REASON, is_too_many

#: Keys of what a trial notes of its artefact: the folder, and the machine that has it.
ARTIFACT, HOST = "artifact", "host"
#: Loggers of Lightning that write to a stream of their own.
LOGGERS = ("lightning.pytorch", "lightning.fabric")


class Fits(Protocol):
    """What a search needs of the command line: it builds and runs fits."""

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration of the fit that is varied."""

    @property
    def trainer(self) -> Trainer:
        """The Trainer of that fit, which has not run."""

    def build(self, config: Mapping[str, Any]) -> None:
        """Build what a fit with a configuration is made of, or raise a SearchError."""

    def run(self, config: Path, callbacks: Sequence[Callback]) -> None:
        """Run ``lit-compress fit --config`` with additional callbacks."""

    def explain(self, error: Exception) -> str:
        """Return an error as one line."""


class FailedTrial(Exception):  # the study goes on
    """A fit ended with an error; the message is that error."""


class TooMany(Exception):
    """Another worker began the last trial of the study at the same moment."""


@dataclass(frozen=True)
class TrialRunner:
    """Runs the trials of a worker; Optuna calls it.

    Attributes:
        settings: The search.
        space: The configuration of the fit, and what may vary in it.
        fits: What runs a fit.
    """

    settings: Settings
    space: Space
    fits: Fits

    def __call__(self, trial: Any) -> tuple[float, ...]:
        """Fit once, and return the objectives.

        Args:
            trial: The ``optuna.Trial``.

        Raises:
            TooMany: If the study has all of its trials.
            FailedTrial: If the fit failed; the study has the reason.
            optuna.TrialPruned: If the trial was without hope.
        """
        from optuna import TrialPruned

        trials = trial.study.get_trials(deepcopy=False)
        if is_too_many(trials, trial.number, self.settings.trials):
            raise TooMany
        folder = trial_folder(Path(self.settings.dirpath), trial.number)
        trial.set_user_attr(HOST, platform.node())
        config = placed(self.space.config_of(self.space.suggested(trial)), folder)
        try:
            return self._fit(trial, folder, config)
        except TrialPruned:
            raise
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's answer to Ctrl-C
                raise KeyboardInterrupt from stop
            raise
        except Exception as error:
            reason = self.fits.explain(error)
            trial.set_user_attr(REASON, reason)
            raise FailedTrial(reason) from error

    def _fit(self, trial: Any, folder: Path, config: dict[str, Any]) -> tuple[float, ...]:
        objectives = self.settings.objectives
        path = write_whole(folder / CONFIG, yaml.safe_dump(config, sort_keys=False))
        same = self.space.choices_of_callbacks()
        stop = [StopHopeless(trial, objectives, same)] if self.settings.stop else []
        with _printed_into(folder / LOG):
            self.fits.run(path, stop)
        card, artifact = card_of(folder)
        found = tuple(objective.value(card) for objective in objectives)
        trial.set_user_attr(ARTIFACT, str(artifact.absolute()))
        return found


@contextmanager
def _printed_into(path: Path) -> Iterator[None]:
    """Write what is printed in the block, and what Lightning logs, into a file."""
    with ExitStack() as stack:
        file = stack.enter_context(path.open("a", encoding="utf-8"))
        for logger in map(logging.getLogger, LOGGERS):
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler):
                    before = handler.setStream(file)
                    stack.callback(handler.setStream, before or handler.stream)
        stack.enter_context(redirect_stdout(file))
        stack.enter_context(redirect_stderr(file))
        yield
