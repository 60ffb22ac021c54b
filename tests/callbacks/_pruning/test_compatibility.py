"""What cannot run beside the removal of channels is refused by name, at the start."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelPruning

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks._pruning.compatibility import check_target
from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.selection.selector import PruningStep
from lit_compress.pruning.selection.uniform import UniformSelector

IMAGES = torch.zeros(2, 1, 8, 8)
ONCE = Schedule(shape="one_shot")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ModelPruning("l1_unstructured", amount=0.3), "together with ModelPruning"),
        (EarlyStopping("pruned/my_acc"), "let it watch my_acc"),
    ],
)
def test_callback_that_stands_in_the_way_is_named(
    other: Callback, message: str, foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    """ModelPruning ended in a KeyError; EarlyStopping ended the run after its first epoch."""
    trainer = make_trainer(callbacks=[FilterPruning(0.5, monitor="my_acc"), other])
    with pytest.raises(InvalidArgumentError, match=message):
        trainer.fit(foreign, loader(), loader(32, 1))


def test_early_stopping_on_the_metric_itself_runs(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    pruner = FilterPruning(0.5, monitor="my_acc")
    trainer = make_trainer(callbacks=[pruner, EarlyStopping("my_acc", mode="max", patience=5)])
    trainer.fit(foreign, loader(), loader(32, 1))
    assert pruner.reached == 0.5


def test_parameters_that_cannot_go_are_counted(foreign: ForeignModule) -> None:
    selector = UniformSelector(Fraction(1), of="parameters", min_channels=6)
    state = selector.analyse(foreign, IMAGES)
    modest, bold = (
        selector.select(foreign, state, PruningStep(share))
        for share in (Fraction(1, 5), Fraction(4, 5))
    )
    check_target(foreign, state, modest, "parameters", 0.2)
    with pytest.raises(
        InvalidArgumentError, match=r"target 0\.8 of parameters .* at most 0\.\d+ can be removed"
    ):
        check_target(foreign, state, bold, "parameters", 0.8)


def test_rounding_that_leaves_little_to_go_is_said(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    """A multiple wider than the layers removed nothing, and nothing was said."""
    pruner = FilterPruning(0.5, round_to=64, schedule=ONCE)
    with pytest.warns(
        UserWarning, match=r"0\.00 of the filters .* the target is 0\.50.* multiples of 64"
    ):
        make_trainer(max_epochs=1, callbacks=[pruner]).fit(foreign, loader(16), loader(16, 1))
    assert foreign.net[0].out_channels == 8


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_target_of_a_resumed_run_that_cannot_be_reached_is_refused(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Other arguments than the checkpoint's were only looked at when it was due, and fell short."""
    trainer = make_trainer(max_epochs=1, callbacks=[FilterPruning(0.3, schedule=ONCE)])
    trainer.fit(foreign, loader(16), loader(16, 1))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = FilterPruning(0.9, of="macs", exclude=["net.0"], schedule=Schedule(1, 1))
    with pytest.raises(InvalidArgumentError, match=r"target 0\.9 of macs cannot be reached"):
        make_trainer(callbacks=[other]).fit(
            ForeignModule(), loader(16), loader(16, 1), ckpt_path=tmp_path / "a.ckpt"
        )
