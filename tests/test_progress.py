"""Progress bars of scan, calibration and evaluation, in the style of the trainer's own bar."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rich
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from tqdm import tqdm

from lit_compress import progress
from lit_compress.callbacks import CompressionReport, PostTrainingQuantization
from lit_compress.progress import progress_bar, track
from lit_compress.trainer import Trainer as CompressTrainer

NAMES = ("calibration (batches)", "noise of each layer", "measuring my_acc")


class Terminal(io.StringIO):
    """Keeps what is written to it, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal in place of the output, on which every bar appears at once."""
    shown = Terminal()
    monkeypatch.setattr(progress, "DELAY", -1.0)
    monkeypatch.setattr(progress, "tqdm", partial(tqdm, file=shown))
    rich.reconfigure(**console(shown))
    yield shown
    rich.reconfigure()  # Lightning sets the console of all


def console(terminal: Terminal) -> dict[str, Any]:
    return {"file": terminal, "force_terminal": True, "width": 100}


def bars(terminal: Terminal) -> dict[str, ProgressBar | None]:
    """Return a bar of each kind that Lightning has, and one that draws nothing."""
    silent = TQDMProgressBar()
    silent.disable()
    return {
        "tqdm": TQDMProgressBar(),
        "rich": RichProgressBar(console_kwargs=console(terminal)),
        "disabled": silent,
        "off": TQDMProgressBar(refresh_rate=0),
        "none": None,
    }


def trainer_with(
    kind: str,
    terminal: Terminal,
    make: Callable[..., Trainer],
    *callbacks: object,
    **options: object,
) -> Trainer:
    bar = bars(terminal)[kind]
    found = [*callbacks, *([bar] if bar else [])]
    return make(callbacks=found, enable_progress_bar=bar is not None, **options)


@pytest.mark.parametrize("kind", ["tqdm", "rich", "none"])
@pytest.mark.usefixtures("no_trial_conversion")
def test_the_end_of_a_fit_shows_bars_in_the_style_of_the_run(
    kind: str, terminal: Terminal, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    quantizer = PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "artifact"))
    trainer = trainer_with(kind, terminal, make_trainer, quantizer, max_epochs=1)
    trainer.fit(ForeignModule(), loader(32), loader(32, 1))
    for name in NAMES:
        assert (name in terminal.getvalue()) == (kind in ("tqdm", "rich")), name


def test_the_table_of_the_report_comes_below_the_live_display(
    terminal: Terminal, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """The bar of the last epoch was drawn again below the table."""
    report = CompressionReport(dirpath=str(tmp_path / "artifact"))
    trainer = trainer_with("rich", terminal, make_trainer, report, max_epochs=1)
    with contextlib.redirect_stdout(terminal):
        trainer.fit(ForeignModule(), loader(32), loader(32, 1))
    assert terminal.getvalue().rindex("Epoch 0/0") < terminal.getvalue().index("variant ")


@pytest.mark.parametrize("kind", ["tqdm", "rich", "none"])
def test_a_scan_shows_a_bar_in_the_style_of_the_run(
    kind: str, terminal: Terminal, tmp_path: Path
) -> None:
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = trainer_with(kind, terminal, CompressTrainer, **options)
    trainer.scan(
        ForeignModule(), loader(32), levels=[0.5], images=16, curves=False, dirpath=str(tmp_path)
    )
    assert ("scan (trials)" in terminal.getvalue()) == (kind != "none")


@pytest.mark.parametrize("kind", ["disabled", "off"])
def test_a_bar_that_is_switched_off_stays_off(
    kind: str, terminal: Terminal, make_trainer: Callable[..., Trainer]
) -> None:
    trainer = trainer_with(kind, terminal, make_trainer)
    assert list(track(trainer, "abc", "spell")) == ["a", "b", "c"]
    assert "spell" not in terminal.getvalue()


@pytest.mark.parametrize("kind", ["tqdm", "rich"])
def test_short_work_shows_no_bar(
    kind: str,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    make_trainer: Callable[..., Trainer],
) -> None:
    monkeypatch.setattr(progress, "DELAY", 60.0)
    trainer = trainer_with(kind, terminal, make_trainer)
    assert list(track(trainer, "abc", "spell")) == ["a", "b", "c"]
    assert "spell" not in terminal.getvalue()


def test_output_that_is_a_file_gets_no_bar(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, make_trainer: Callable[..., Trainer]
) -> None:
    plain = io.StringIO()
    monkeypatch.setattr(progress, "tqdm", partial(tqdm, file=plain))
    trainer = trainer_with("tqdm", terminal, make_trainer)
    assert list(track(trainer, "abc", "spell")) == ["a", "b", "c"]
    assert not plain.getvalue()


@pytest.mark.parametrize("kind", ["tqdm", "rich"])
def test_a_bar_in_which_an_error_occurs_leaves_nothing_behind(
    kind: str, terminal: Terminal, make_trainer: Callable[..., Trainer]
) -> None:
    trainer = trainer_with(kind, terminal, make_trainer)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # the loop is what fails
        for item in track(trainer, [1, 0], "count"):
            print(1 / item)
    assert "count" in terminal.getvalue()
    with progress_bar(
        trainer, float("inf"), "again"
    ) as advance:  # rich has one live display at a time
        advance()
    assert "again" in terminal.getvalue()
