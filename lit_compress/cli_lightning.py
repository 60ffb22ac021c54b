"""One verb of the Trainer on the command line, by LightningCLI."""

from __future__ import annotations

import logging
import sys
import warnings
from argparse import SUPPRESS
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import lightning
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from typing_extensions import override

# jsonargparse accepts a class by its name alone once its module is imported.
import lit_compress.callbacks
import lit_compress.datamodules
import lit_compress.modules  # noqa: F401
from lit_compress import __version__
from lit_compress.callbacks._pruning.pruned_checkpoints import PrunedCheckpoints
from lit_compress.callbacks._run.resuming import resuming
from lit_compress.checkpoints.constructor import check_parsed
from lit_compress.checkpoints.reading import check_whole
from lit_compress.cli_errors import explain
from lit_compress.cli_monitor import watch
from lit_compress.doctor import Diagnosis
from lit_compress.errors import SearchError
from lit_compress.trainer import Trainer

#: Help of the option that names the metric for all callbacks.
MONITOR = (
    "Metric that your validation_step logs, such as val/acc: each callback that watches a metric, "
    "of whatever config, watches this one."
)

#: Arguments of a verb that the command line itself passes: they are not options.
GIVEN = {"model", "dataloaders", "datamodule", "train_dataloaders", "val_dataloaders"}
#: Verbs that read the config of a fit, and watch one metric.
FITS = ("fit", "doctor")


class VerbCLI(LightningCLI):
    """LightningCLI with the parser of one verb alone: to build one takes a second.

    Args:
        verb: The verb.
        options: Arguments of LightningCLI.
    """

    def __init__(self, verb: str, **options: Any) -> None:
        self.verb = verb
        #: What ``doctor`` found; None for other verbs.
        self.diagnosis: Diagnosis | None = None
        super().__init__(LightningModule, LightningDataModule, **options)

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        if self.verb in FITS:
            # No other verb has it, so it is in no config that is saved or printed.
            parser.add_argument("--monitor", type=str, default=SUPPRESS, help=MONITOR)

    @override
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # not static: the verb
        return {self.verb: LightningCLI.subcommands().get(self.verb, GIVEN)}

    def doctor(self, **options: Any) -> None:
        """Called by LightningCLI for the verb: keeps what was found, for the exit code."""
        self.diagnosis = cast(Trainer, self.trainer).doctor(**options)

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        config = self.config[self.verb]
        monitor = config.pop("monitor", None) if self.verb in FITS else None
        if monitor is not None:
            watch(config.trainer.callbacks or [], monitor)
        path = config.get("ckpt_path")
        check_whole(path)
        if path is not None and Path(path).is_file():
            check_parsed(path)  # Lightning is about to parse its hyperparameters


class _BuildCLI(VerbCLI):
    """Builds what a fit is made of, and does not start it."""

    def fit(self, **options: Any) -> None:
        """Called by LightningCLI in place of the Trainer's method: does nothing."""


class FitRunner:
    """Builds and runs a fit, and others whose configuration differs in some values.

    Args:
        words: All words of the command line, with ``fit`` first.

    Attributes:
        config: The whole configuration as plain values, with all defaults.
        trainer: The Trainer, which has not run.
    """

    def __init__(self, words: list[str]) -> None:
        self._cli = _with_words("fit", words, _BuildCLI)
        text = self._cli.parser.dump(self._cli.config, skip_none=False)
        self.config: dict[str, Any] = yaml.safe_load(text)["fit"]
        self.trainer: Trainer = cast(Trainer, self._cli.trainer)

    def build(self, config: Mapping[str, Any]) -> None:
        """Build Trainer, callbacks, model and data of another configuration, and drop them.

        Args:
            config: The whole configuration.

        Raises:
            SearchError: If one of them cannot be built.
        """
        parser, verb = self._cli.parser, {"subcommand": "fit", "fit": dict(config)}
        try:
            parser.instantiate_classes(parser.parse_object(verb))
        except Exception as error:  # of jsonargparse, or of any constructor
            raise SearchError(explain(error)) from error

    def run(self, config: Path, callbacks: Sequence[Callback]) -> None:
        """Run ``lit-compress fit --config`` with additional callbacks.

        Args:
            config: The file.
            callbacks: Callbacks that are in no config.
        """
        run("fit", ["fit", "--config", str(config)], callbacks)

    def explain(self, error: Exception) -> str:
        """Return an error as one line."""
        return explain(error)


def run(verb: str, words: list[str], callbacks: Sequence[Callback] = ()) -> VerbCLI:
    """Run one verb.

    Args:
        verb: Name of a method of :class:`lit_compress.trainer.Trainer`, such as ``fit``.
        words: All words of the command line, with the verb first.
        callbacks: Callbacks for the Trainer that are in no config.

    Returns:
        The object after the run, with its ``trainer``, ``model`` and ``datamodule``.
    """
    return _with_words(verb, words, VerbCLI, callbacks)


def _with_words(
    verb: str, words: list[str], kind: type[VerbCLI], callbacks: Sequence[Callback] = ()
) -> VerbCLI:
    header = [f"lit-compress=={__version__}", f"lightning=={lightning.__version__}"]
    options = {"exit_on_error": False, "dump_header": header}
    # Strategies such as ddp start their other processes with sys.argv.
    saved, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        with _without_noise(), resuming(_given(words, "--ckpt_path")):
            return _verb(verb, options, kind, callbacks)
    finally:
        sys.argv = saved


def _given(words: list[str], option: str) -> str | None:
    """Return the value of an option among the words; None if a config gives it."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else next(iter(words[index + 1 :]), None)
    return None


def _verb(
    verb: str, options: dict[str, Any], kind: type[VerbCLI], callbacks: Sequence[Callback]
) -> VerbCLI:
    return kind(
        verb,
        trainer_class=Trainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        trainer_defaults={"callbacks": [PrunedCheckpoints(), *callbacks]},
        # Other verbs write no config: with the config of a fit they would replace it by their own.
        save_config_callback=SaveConfigCallback if verb == "fit" else None,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={**options, verb: dict(options)},
    )


@contextmanager
def _without_noise() -> Iterator[None]:
    """Leave out what no user of ours can act on: an upstream deprecation, and advertisements."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addFilter(_no_tip)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 on torch 2.14: https://github.com/Lightning-AI/pytorch-lightning/issues/21326
            message = r"`isinstance\(treespec, LeafSpec\)` is deprecated"
            warnings.filterwarnings("ignore", message, FutureWarning)
            yield
    finally:
        log.removeFilter(_no_tip)


def _no_tip(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("💡 Tip")
