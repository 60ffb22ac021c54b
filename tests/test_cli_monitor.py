"""One option names the metric for the callbacks of all configs."""

from pathlib import Path

import pytest
from jsonargparse import Namespace

from lit_compress.callbacks import FilterPruning
from lit_compress.cli_lightning import run
from lit_compress.cli_monitor import watch


def callback(monitor: str | None, mode: str | None = None) -> Namespace:
    return Namespace(init_args=Namespace(monitor=monitor, mode=mode))


@pytest.mark.parametrize(
    ("monitor", "given", "expected"),
    [
        ("val/acc", callback("val_acc"), ("val/acc", None)),
        ("val/acc", callback("pruned/val_acc", "max"), ("pruned/val/acc", "max")),
        ("val/loss", callback("pruned/val_acc", "max"), ("pruned/val/loss", "min")),
        ("score", callback("val_acc", "max"), ("score", "max")),  # the name does not say it
        ("val/loss", callback("val_acc", "auto"), ("val/loss", "auto")),
        ("val/acc", callback(None), (None, None)),
    ],
)
def test_each_callback_that_watches_a_metric_watches_this_one(
    monitor: str, given: Namespace, expected: tuple[str | None, str | None]
) -> None:
    watch([given, Namespace(class_path="Timer")], monitor)
    assert (given.init_args.monitor, given.init_args.mode) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("shallow")
def test_parts_take_any_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts watched val_acc alone; a module that logs another key had to repeat them."""
    monkeypatch.chdir(tmp_path)
    parts = Path(__file__).parent.parent / "configs" / "prune_filters.yaml"
    words = ["--model=ShuffleNetV2", "--model.in_channels=1", "--data=DigitsDataModule"]
    words += ["--trainer.max_epochs=3", "--trainer.limit_train_batches=1", "--trainer.logger=false"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    cli = run("fit", ["fit", *words, f"--config={parts}", "--monitor=val_loss"])
    (keep,) = [c for c in cli.trainer.checkpoint_callbacks if c.monitor]
    assert (keep.monitor, keep.mode) == ("pruned/val_loss", "min")
    (pruning,) = [c for c in cli.trainer.callbacks if isinstance(c, FilterPruning)]
    assert pruning.monitor == "val_loss"
    assert "pruned/val_loss" in cli.trainer.callback_metrics
    printed = cli.parser.dump(cli.config)
    assert "monitor: pruned/val_loss" in printed
    assert "\n  monitor:" not in printed  # no other verb could read the saved config
