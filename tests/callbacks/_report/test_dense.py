"""Which network is called dense. More is in test_report.py, from whole fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress.callbacks import CompressionReport, FilterPruning
from lit_compress.callbacks._report.dense import DenseNetwork
from lit_compress.errors import InvalidArgumentError


def test_a_baseline_that_is_pruned_is_refused_before_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """It would have been shown as the dense network."""
    keep = ModelCheckpoint(tmp_path, "pruned")
    callbacks = [FilterPruning(0.5), keep]
    trainer = make_trainer(max_epochs=2, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(ForeignModule(), loader(), loader(32, 1))
    report = CompressionReport("my_acc", baseline=str(tmp_path / "pruned.ckpt"))
    again = make_trainer(callbacks=[report])
    with pytest.raises(InvalidArgumentError, match=r"baseline: the network of .* is pruned"):
        again.fit(ForeignModule(), loader(), loader(32, 1))
    assert again.global_step == 0


def test_the_state_of_an_older_version_is_taken_on() -> None:
    dense = DenseNetwork()
    dense.restore({"dense": "a/dense.safetensors", "dense_epoch": 3})
    assert dense.state() == {
        "dense": "a/dense.safetensors", "dense_epoch": 3, "dense_sha256": None,
    }  # fmt: skip
    dense.forget()
    assert dense.state()["dense"] is None
