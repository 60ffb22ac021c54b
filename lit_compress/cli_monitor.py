"""One metric for all callbacks of a run: the option ``--monitor`` of ``fit``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lit_compress.measure.metric_names import higher_is_better

#: Before the name of a metric: it exists once the pruning target is reached.
PRUNED = "pruned/"


def watch(callbacks: Iterable[Any], monitor: str) -> None:
    """Let each configured callback that watches a metric watch this one.

    Args:
        callbacks: The parsed callbacks of a config, which are changed.
        monitor: The metric.

    Example:
        >>> from jsonargparse import Namespace
        >>> arguments = Namespace(monitor="pruned/val_acc", mode="max")
        >>> watch([Namespace(class_path="ModelCheckpoint", init_args=arguments)], "val/loss")
        >>> arguments
        Namespace(monitor='pruned/val/loss', mode='min')
    """
    for callback in callbacks:
        arguments = callback.get("init_args") or {}
        watched = arguments.get("monitor")
        if not isinstance(watched, str):
            continue
        arguments["monitor"] = PRUNED + monitor if watched.startswith(PRUNED) else monitor
        if arguments.get("mode") in ("min", "max"):
            arguments["mode"] = _mode(monitor) or arguments["mode"]


def _mode(monitor: str) -> str | None:
    """Return whether a metric is to be small or large; None if its name does not say it."""
    better = higher_is_better(monitor)
    return None if better is None else ("max" if better else "min")
