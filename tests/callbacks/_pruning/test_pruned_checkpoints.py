"""Runs that do not prune load checkpoints of pruned modules, to measure them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks._pruning.pruned_checkpoints import PrunedCheckpoints
from lit_compress.errors import CheckpointError

MakeTrainer = Callable[..., Trainer]
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


@pytest.fixture
def pruned(foreign: ForeignModule, make_trainer: MakeTrainer, tmp_path: Path) -> Path:
    pruner = FilterPruning(0.5, schedule=Schedule(shape="one_shot"))
    trainer = make_trainer(max_epochs=1, callbacks=[pruner])
    trainer.fit(copy.deepcopy(foreign), loader(32), loader(16, 1))
    trainer.save_checkpoint(tmp_path / "pruned.ckpt")
    return tmp_path / "pruned.ckpt"


def test_a_pruned_checkpoint_is_validated_without_the_callback(
    pruned: Path, foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(callbacks=[PrunedCheckpoints()])
    trainer.validate(foreign, loader(16, 1), ckpt_path=pruned, verbose=False)
    assert foreign.net[0].out_channels == 4
    saved = torch.load(pruned, weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in foreign.state_dict().items())


def test_a_fit_goes_on_with_the_callback_only(
    pruned: Path, foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    before = copy.deepcopy(foreign.state_dict())
    trainer = make_trainer(callbacks=[PrunedCheckpoints()])
    with pytest.raises(CheckpointError, match="saved with a pruning callback, which this run"):
        trainer.fit(foreign, loader(32), loader(16, 1), ckpt_path=pruned)
    assert all(torch.equal(before[name], tensor) for name, tensor in foreign.state_dict().items())
    again = FilterPruning(0.5, schedule=Schedule(shape="one_shot"))
    trainer = make_trainer(max_epochs=2, callbacks=[PrunedCheckpoints(), again])
    trainer.fit(foreign, loader(32), loader(16, 1), ckpt_path=pruned)
    assert foreign.net[0].out_channels == 4


def test_a_fit_without_pruning_is_left_alone(
    foreign: ForeignModule, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    untrained = copy.deepcopy(foreign)
    trainer = make_trainer(max_epochs=1, callbacks=[PrunedCheckpoints()])
    trainer.fit(foreign, loader(32), loader(16, 1))
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    again = make_trainer(max_epochs=2, callbacks=[PrunedCheckpoints()])
    again.fit(ForeignModule(), loader(32), loader(16, 1), ckpt_path=tmp_path / "dense.ckpt")
    straight = copy.deepcopy(untrained)
    make_trainer(max_epochs=2).fit(straight, loader(32), loader(16, 1))
    resumed = again.lightning_module.state_dict()
    assert all(torch.equal(resumed[n], tensor) for n, tensor in straight.state_dict().items())
