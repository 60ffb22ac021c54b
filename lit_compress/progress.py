"""Progress bars of long work of ours, in the style of the trainer's own bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from tqdm import tqdm

Item = TypeVar("Item")
#: Called when one more item is done.
Advance = Callable[[], object]
#: Seconds after which a bar appears. Shorter work has none.
DELAY = 1.0


def track(trainer: Trainer, items: Sequence[Item], description: str) -> Iterable[Item]:
    """Yield items, with a progress bar if they take longer than a second.

    Args:
        trainer: The run, whose own progress bar gives the style.
        items: The items.
        description: What is done with them, in a word or two.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> run = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
        ...               enable_progress_bar=False)
        >>> list(track(run, [1, 2], "count"))
        [1, 2]
    """
    with progress_bar(trainer, len(items), description) as advance:
        for item in items:
            yield item
            advance()


def progress_bar(
    trainer: Trainer, total: float, description: str
) -> AbstractContextManager[Advance]:
    """Show a progress bar inside the block, if the block takes longer than a second.

    It is drawn with rich where the trainer's bar is, with tqdm where another one is, and not at
    all where the trainer has none or its bar is disabled.

    Args:
        trainer: The run, whose own progress bar gives the style.
        total: Number of items; infinity if it is not known.
        description: What is done with them, in a word or two.

    Returns:
        A context manager. Call what it gives after each item.
    """
    bar: Any = trainer.progress_bar_callback
    if bar is None or getattr(bar, "is_disabled", False):
        return _no_bar()
    known = total if total < float("inf") else None
    if isinstance(bar, RichProgressBar):
        return _rich_bar(bar, known, description)
    return _tqdm_bar(known, description)


def end_live_display(trainer: Trainer, module: LightningModule) -> None:
    """End the trainer's live display before its time, so that what is printed next comes below it.

    rich draws it again and again until the run is torn down, also while times are measured.

    Args:
        trainer: The run.
        module: The user's module.
    """
    bar = trainer.progress_bar_callback
    if isinstance(bar, RichProgressBar):
        bar.teardown(trainer, module, "fit")  # a second one does nothing


@contextmanager
def _no_bar() -> Iterator[Advance]:
    yield lambda: None


@contextmanager
def _tqdm_bar(total: float | None, description: str) -> Iterator[Advance]:
    # disable=None: no bar where the output is a file.
    with tqdm(
        total=total,
        desc=description,
        leave=False,
        delay=DELAY,
        dynamic_ncols=True,
        disable=None,
    ) as bar:
        yield bar.update


@contextmanager
def _rich_bar(bar: RichProgressBar, total: float | None, description: str) -> Iterator[Advance]:
    """Add a row to the trainer's live display; after its end, show a display of its own."""
    from rich.progress import Progress

    live: Any = bar.progress
    if live is not None and not bar._progress_stopped:
        with _rich_row(live, total, description) as advance:
            yield advance
        return
    # Lightning's display has columns that work inside its loops alone.
    with Progress(transient=True) as own, _rich_row(own, total, description) as advance:
        yield advance


@contextmanager
def _rich_row(live: Any, total: float | None, description: str) -> Iterator[Advance]:
    start = time.monotonic()
    row = live.add_task(description, total=total, visible=False)

    def advance() -> None:
        shows = time.monotonic() - start > DELAY
        # The display redraws itself a few times a second; a new row is drawn at once.
        appears = shows and not next(task.visible for task in live.tasks if task.id == row)
        live.update(row, advance=1, visible=shows, refresh=appears)

    try:
        yield advance
    finally:
        live.remove_task(row)
        live.refresh()
