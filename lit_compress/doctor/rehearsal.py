"""The start of a fit on copies, up to the first training step, without a trace on the disk."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lit_compress.checkpoints.folder import run_folder
from lit_compress.evaluation.run_view.copies import clone_with, quiet
from lit_compress.evaluation.run_view.proxy import own_attributes
from lit_compress.evaluation.run_view.silent import Nothing, SilentCallback, SilentLogger
from lit_compress.evaluation.trainer_access import callbacks, profiler, set_root_dir

Hook = Callable[[Trainer, LightningModule], None]


class UnopenedLogger(SilentLogger):
    """A logger whose names and folders are read; its experiment, which makes files, is not."""

    @property
    def experiment(self) -> Any:
        """Something that does nothing, whatever is called on it."""
        return Nothing()


#: Attributes of loggers that name their folders.
FOLDERS = ("save_dir", "root_dir", "log_dir")


class _Stop(Exception):
    """Ends the rehearsal where the training would begin."""


class _Probe(Callback):
    """Calls functions where Lightning calls the hooks of the same names."""

    def __init__(
        self, setup: Hook | None = None, fit_start: Hook | None = None, ready: Hook | None = None
    ) -> None:
        self._setup, self._fit_start, self._ready = setup, fit_start, ready

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._setup is not None:
            self._setup(trainer, pl_module)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fit_start is not None:
            self._fit_start(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._ready is not None:
            self._ready(trainer, pl_module)


def stop(*_: Any) -> None:
    """End the rehearsal: the last probe calls it when the training would begin."""
    raise _Stop


class Rehearsal:
    """Copies of a Trainer, its callbacks and a module, whose fit stops before the training.

    The copied Trainer writes below a temporary folder, its loggers make no files, and callbacks
    that are not among ``hooked`` are read and not called.

    Args:
        trainer: The Trainer; it does not change.
        module: The module; it does not change.
        data: The datamodule and the loaders, which are shared.
        hooked: Tells whether the hooks of a callback are called.

    Attributes:
        trainer: The copy of the Trainer.
        module: The copy of the module.
        folder: The folder of the run.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        data: Sequence[Any],
        hooked: Callable[[Callback], bool],
    ) -> None:
        shared: dict[int, Any] = {id(one): one for one in data if one is not None}
        shared |= {id(logger): UnopenedLogger(logger) for logger in trainer.loggers}
        shared[id(profiler(trainer))] = PassThroughProfiler()
        shared |= {id(c): SilentCallback(c) for c in callbacks(trainer) if not hooked(c)}
        self.module, _ = clone_with(trainer, module, None)
        shared[id(module)] = self.module
        self.trainer: Trainer = copy.deepcopy(trainer, shared)
        self.hooked = [one for one in callbacks(self.trainer) if hooked(one)]
        self.folder = run_folder(self.trainer)
        self._temporary = ""

    def start(self, first: _Probe, last: _Probe, **fit: Any) -> Exception | None:
        """Begin the fit.

        Args:
            first: Called before the other callbacks.
            last: Called after them; the training does not begin after its ``on_train_start``.
            **fit: Arguments of Lightning's ``Trainer.fit``.

        Returns:
            The error that ended it early; None if there is none.
        """
        own = callbacks(self.trainer)
        own[:] = [first, *(one for one in own if not isinstance(one, ProgressBar)), last]
        self.trainer.num_sanity_val_steps = 0
        with tempfile.TemporaryDirectory() as folder, isolate_rng(), quiet():
            self._write_to(Path(folder))
            try:
                Trainer.fit(self.trainer, self.module, **fit)
            except _Stop:
                return None
            except Exception as raised:
                return raised
        return None

    def _write_to(self, folder: Path) -> None:
        self._temporary = str(folder)
        set_root_dir(self.trainer, str(folder))
        for logger in self.trainer.loggers:
            own_attributes(cast(UnopenedLogger, logger)).update(dict.fromkeys(FOLDERS, str(folder)))
        for callback in self.hooked:
            if isinstance(given := getattr(callback, "dirpath", None), str):
                inside = Path(folder, "named", *Path(given).absolute().parts[1:])
                callback.dirpath = str(inside)  # type: ignore[attr-defined]

    def true_names(self, text: str) -> str:
        """Return a text with the names of the true folders for those below the temporary one.

        Args:
            text: The text of a message.
        """
        if not self._temporary:
            return text
        text = text.replace(str(Path(self._temporary, "named", "x"))[:-1], os.sep)
        return text.replace(self._temporary, str(self.folder))


@contextmanager
def unattached(data: Any) -> Iterator[None]:
    """Give a datamodule its Trainer back at the end of the block."""
    before = getattr(data, "trainer", None)
    try:
        yield
    finally:
        if data is not None:
            data.trainer = before
