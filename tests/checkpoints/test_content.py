"""Checkpoints that anyone may have made: one kind of error, whatever is damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lit_compress import load_from_checkpoint
from lit_compress.checkpoints.reading import check_whole
from lit_compress.errors import CheckpointError, LitCompressError
from lit_compress.modules import ShuffleNetV2


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = Trainer(logger=False, enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(ShuffleNetV2(width=0.5, in_channels=1, stem="cifar"))
    path = tmp_path_factory.mktemp("saved") / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


def changed(saved: Path, tmp_path: Path, change: dict[str, Any]) -> Path:
    content = torch.load(saved, weights_only=True)
    for key, value in change.items():
        if isinstance(value, dict) and key == "hyper_parameters":
            content[key] |= value
        else:
            content[key] = value
    torch.save(content, tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hyper_parameters", None),
        ("hyper_parameters", [1]),
        ("pytorch-lightning_version", "x"),
        ("pytorch-lightning_version", None),
        ("epoch", "x"),
        ("epoch", -1),
        ("global_step", 1.5),
        ("callbacks", torch.zeros(2)),
        ("loops", 7),
        ("optimizer_states", [torch.zeros(2)]),
        ("lr_schedulers", {"a": 1}),
        ("state_dict", {3: torch.zeros(2)}),
        ("state_dict", torch.zeros(2)),
    ],
)
def test_a_part_of_another_kind_is_named(
    saved: Path, tmp_path: Path, key: str, value: object
) -> None:
    path = changed(saved, tmp_path, {key: value})
    with pytest.raises(CheckpointError, match=key):
        load_from_checkpoint(ShuffleNetV2, path)


@pytest.mark.parametrize("value", [10**9, 10**12, 10**18])
def test_a_size_is_refused_before_its_memory_is_taken(
    saved: Path, tmp_path: Path, value: int
) -> None:
    """Ten billion classes ended in torch's out-of-memory error."""
    path = changed(saved, tmp_path, {"hyper_parameters": {"num_classes": value}})
    with pytest.raises(CheckpointError, match="elements"):
        load_from_checkpoint(ShuffleNetV2, path)


@pytest.mark.parametrize("value", ["x", None, [1], -3])
def test_a_hyperparameter_of_another_kind_names_the_file(
    saved: Path, tmp_path: Path, value: object
) -> None:
    path = changed(saved, tmp_path, {"hyper_parameters": {"width": value}})
    with pytest.raises(LitCompressError):
        load_from_checkpoint(ShuffleNetV2, path)


def test_a_flipped_bit_of_a_weight_is_found(saved: Path, tmp_path: Path) -> None:
    """torch does not look at the checksums of its files: a damaged weight was loaded."""
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("/data/0"))
        place = bytes(data).find(archive.read(entry))
    data[place + 3] ^= 0x40
    path = tmp_path / "flipped.ckpt"
    path.write_bytes(data)
    for read in (lambda: load_from_checkpoint(ShuffleNetV2, path), lambda: check_whole(path)):
        with pytest.raises(CheckpointError, match=r"flipped\.ckpt cannot be read \(BadZipFile: "):
            read()
