"""The Trainer's own verbs."""

from __future__ import annotations

import copy
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.errors import CheckpointError, ScanError
from lit_compress.trainer import Trainer


def trainer(**options: Any) -> Trainer:
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**(quiet | options))  # type: ignore[arg-type]


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """A checkpoint whose network lost half of its filters."""
    torch.manual_seed(0)
    save = ModelCheckpoint(tmp_path / "ckpt", "last")
    pruning = FilterPruning(0.5, schedule=Schedule(shape="one_shot", last=0))
    fit = trainer(max_epochs=2, enable_checkpointing=True, callbacks=[pruning, save])
    fit.fit(ForeignModule(), loader(64), loader(64))
    return tmp_path / "ckpt" / "last.ckpt"


@pytest.mark.parametrize("granularity", ["element", "filter"])
def test_a_checkpoint_of_a_smaller_network_is_scanned(
    pruned: Path, tmp_path: Path, granularity: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ForeignModule()
    found = trainer().scan(
        module,
        loader(64),
        ckpt_path=str(pruned),
        granularity=granularity,
        levels=[0, 0.5],
        dirpath=str(tmp_path / "scan"),
    )
    assert module.net[0].out_channels == 4
    row = next(r for r in found.rows if (r.layer, r.ratio) == ("net.3", Fraction(1, 2)))
    assert (row.pruned, row.of) == ((3, 6) if granularity == "filter" else (108, 216))
    saved = torch.load(pruned, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in module.state_dict().items())
    (scores,) = trainer().validate(copy.deepcopy(module), loader(64), verbose=False)
    assert found.baseline == scores
    assert "all layers" in capsys.readouterr().out


def test_the_checkpoint_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ckpt_path: there is no file"):
        trainer().scan(ForeignModule(), loader(64), ckpt_path="best", dirpath=str(tmp_path))


def test_validation_that_is_switched_off_is_refused() -> None:
    with pytest.raises(ScanError, match="there is no validation data"):
        trainer(limit_val_batches=0).scan(ForeignModule(), loader(64))


def test_it_still_fits(foreign: ForeignModule) -> None:
    before = copy.deepcopy(foreign.state_dict())
    fit = trainer(max_epochs=1)
    fit.fit(foreign, loader(64), loader(64))
    assert "my_acc" in fit.callback_metrics
    assert any(not torch.equal(v, before[n]) for n, v in foreign.state_dict().items())
