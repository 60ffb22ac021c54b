from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import lit_compress
from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.checkpoints.loading_line import artifact_line, checkpoint_line


class Template(ForeignModule):
    def __init__(
        self, net: nn.Module, optimizer: Any, width: int, dtype: Any, more: int = 2
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["net"], logger=False)
        self.net = net  # type: ignore[assignment]

    def configure_optimizers(self) -> Any:
        return self.hparams.optimizer(self.parameters())


class Whole(ForeignModule):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters(config)


def template() -> Template:
    return Template(ForeignModule().net, partial(torch.optim.SGD, lr=0.1), 3, torch.float32)


def test_the_line_gives_what_no_file_holds() -> None:
    line = artifact_line(template(), Path("art"))
    assert "lit_compress.load('art') runs it" in line
    assert "restore('art', Template, optimizer=..., dtype=..., net=...)" in line
    assert "restore('art', Whole)" in artifact_line(Whole({"lr": 0.1}), Path("art"))


@pytest.mark.filterwarnings("ignore:.*is an instance of `nn.Module`:UserWarning")
def test_the_line_after_a_fit_loads_the_pruned_checkpoint(
    make_trainer: Callable[..., Trainer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Lightning's own load said "size mismatch", and nothing said what would load it."""
    keep = ModelCheckpoint(tmp_path, "{epoch}", monitor="my_loss")
    pruning = FilterPruning(0.5, schedule=Schedule(shape="one_shot"))
    trainer = make_trainer(callbacks=[keep, pruning], enable_checkpointing=True)
    module = template()
    assert checkpoint_line(make_trainer(), module) is None
    trainer.fit(module, loader(), loader(32, 1))
    path = keep.best_model_path
    words = f"lit_compress.load_from_checkpoint(Template, {path!r}, optimizer=..., net=...)"
    assert checkpoint_line(trainer, module) == words
    assert words in caplog.text
    net = ForeignModule().net
    made = lit_compress.load_from_checkpoint(Template, path, optimizer=None, net=net)
    assert made.net[0].out_channels == module.net[0].out_channels == 4
