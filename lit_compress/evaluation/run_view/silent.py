"""Loggers, callbacks and the profiler of a run, which can be read and do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isroutine
from pathlib import Path
from types import FunctionType
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar

from lit_compress.evaluation.run_view.proxy import View, unviewed

#: Values that are handed out as they are: nothing can be logged through them.
PLAIN = (str, bytes, int, float, complex, bool, type(None), Path)
#: Beginnings of the names of methods that write to a logger, and whole names of others.
WRITES = ("log", "add_", "save", "finalize", "after_", "watch", "unwatch", "append", "upload")
#: The hooks that Lightning calls on a callback.
HOOKS = frozenset(
    name
    for name, value in vars(Callback).items()
    if isinstance(value, FunctionType) and (name.startswith("on_") or name in ("setup", "teardown"))
)


def do_nothing(*_: Any, **__: Any) -> None:
    """Take the place of a method that would write."""


class SilentLogger(View):
    """A logger of the run: names and folders are read, nothing is logged.

    Args:
        real: The logger.
    """

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        return do_nothing if callable(value) and name.startswith(WRITES) else value

    @property
    def experiment(self) -> Any:
        """The logger's experiment; what is called on it does nothing."""
        return silent_experiment(unviewed(self).experiment)


class SilentCallback(View):
    """A callback of the run: its state is read, its hooks do nothing.

    Args:
        real: The callback.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in HOOKS:
            return do_nothing
        if name == "print" and isinstance(unviewed(self), ProgressBar):
            return do_nothing
        return super().__getattribute__(name)


class SilentProfiler(View):
    """The profiler of the run, which measures nothing.

    Args:
        real: The profiler.
    """

    def __init__(self, real: Any) -> None:
        super().__init__(real, start=do_nothing, stop=do_nothing)


class Nothing:
    """What a silent experiment returns: anything can be asked of it, and nothing comes of it."""

    def __call__(self, *_: Any, **__: Any) -> Nothing:
        """Do nothing."""
        return Nothing()

    def __getattr__(self, name: str) -> Nothing:
        return Nothing()

    def __getitem__(self, key: Any) -> Nothing:
        return Nothing()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __enter__(self) -> Nothing:
        return Nothing()

    def __exit__(self, *_: Any) -> None:
        pass


class SilentExperiment(Nothing):
    """An experiment of any logger: plain values are read, calls do nothing.

    Args:
        real: The experiment, such as a SummaryWriter.
    """

    def __init__(self, real: Any) -> None:
        self.__dict__["real__"] = real

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.__dict__["real__"])

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__dict__["real__"], name)
        # A getter only reads: torch's SummaryWriter has get_logdir().
        return value if callable(value) and name.startswith("get") else silent_experiment(value)

    def __setattr__(self, name: str, value: Any) -> None:
        pass


def silent_experiment(value: Any) -> Any:
    """Return a plain value as it is, and an object that does nothing for any other."""
    if isinstance(value, PLAIN):
        return value
    return Nothing() if isroutine(value) else SilentExperiment(value)
