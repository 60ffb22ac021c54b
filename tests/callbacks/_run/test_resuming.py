from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ForeignModule
from lightning.pytorch import Trainer

from lit_compress.callbacks._run.resuming import resuming
from lit_compress.errors import CheckpointError


def test_errors_that_are_not_of_a_checkpoint_pass() -> None:
    with pytest.raises(KeyError), resuming("last.ckpt"):
        raise KeyError("a")


def test_a_damaged_state_of_an_optimizer_names_the_checkpoint(tmp_path: Path) -> None:
    """Lightning's KeyError did not say which file was damaged."""
    trainer = Trainer(logger=False, enable_checkpointing=False, barebones=True)
    module = ForeignModule()
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    content["optimizer_states"] = [{"state": {}, "param_groups": [{"lr": 1}] * 7}]
    content["lr_schedulers"] = []
    torch.save(content, tmp_path / "a.ckpt")
    again = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, barebones=True)
    data = torch.utils.data.DataLoader(torch.zeros(4, 3, 8, 8), 2)
    with pytest.raises(CheckpointError, match=r"cannot go on from a\.ckpt"), resuming("a.ckpt"):
        again.fit(module, data, ckpt_path=tmp_path / "a.ckpt")
