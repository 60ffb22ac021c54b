"""lit_compress.scan: a module, its data, and no Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

import lit_compress
from lit_compress.errors import InvalidArgumentError


class Data(LightningDataModule):
    """Prepares its batches by a hook, as a LightningDataModule may."""

    def val_dataloader(self) -> DataLoader:
        return loader(32, seed=1)

    def on_after_batch_transfer(self, batch: list[Tensor], index: int) -> tuple[Tensor, Tensor]:
        return batch[0] * 3, batch[1]


def test_a_loader_and_a_datamodule_do(foreign: ForeignModule, tmp_path: Path) -> None:
    options: dict[str, Any] = {"progress": False, "levels": [0.5]}
    given = DataLoader([(x * 3, y) for x, y in loader(32, seed=1)], None)
    one = lit_compress.scan(foreign, given, dirpath=str(tmp_path / "a"), **options)
    two = lit_compress.scan(foreign, Data(), dirpath=str(tmp_path / "b"), **options)
    assert one.rows == two.rows
    assert one.baseline == two.baseline
    assert two.how == "all 32 validation examples"


def test_files_go_to_a_folder_called_scan(
    foreign: ForeignModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lit_compress.scan(foreign, loader(32), progress=False, levels=[0, 0.5], images=8)
    assert [path.name for path in tmp_path.iterdir()] == ["scan"]


def test_an_option_that_is_none_is_told(foreign: ForeignModule) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'level'"):
        lit_compress.scan(foreign, loader(32), level=[0.5])
    with pytest.raises(InvalidArgumentError, match="levels must be"):
        lit_compress.scan(foreign, loader(32), levels=0.5)


def test_what_a_module_keeps_of_the_scan_can_be_trained_on(tmp_path: Path) -> None:
    """Tensors made in inference mode cannot."""

    class Keeps(ForeignModule):
        scale: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = x.std()
            return self.net(x / self.scale)

    module = Keeps()
    lit_compress.scan(module, loader(32), progress=False, levels=[0.5], dirpath=str(tmp_path))
    assert module.scale is not None
    module.training_step(next(iter(loader(32))), 0).backward()
    assert all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)
