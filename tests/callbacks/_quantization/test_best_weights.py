from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, PostTrainingQuantization
from lit_compress.callbacks._quantization.best_weights import check_best, load_best
from lit_compress.errors import CheckpointError

MakeTrainer = Callable[..., Trainer]


def fitted(make_trainer: MakeTrainer, folder: Path, shrink: str, mode: str = "min") -> Trainer:
    keep = ModelCheckpoint(folder, "{epoch}", monitor="my_loss", mode=mode, save_top_k=-1)
    pruning = FilterPruning(0.5, schedule=Schedule(1, 2), shrink=shrink)
    trainer = make_trainer(max_epochs=5, callbacks=[pruning, keep], enable_checkpointing=True)
    trainer.fit(ForeignModule(), loader(), loader(32, 1))
    return trainer


@pytest.mark.parametrize(
    ("shrink", "mode", "best"), [("every", "min", min), ("end", "min", min), ("end", "max", max)]
)
def test_weights_are_the_best_of_the_pruned_epochs(
    shrink: str, mode: str, best: Any, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    """With shrink="end" the checkpoints are whole, and what is loaded has to be cut."""
    trainer = fitted(make_trainer, tmp_path, shrink, mode)
    copy = ForeignModule()
    epochs = load_best(trainer, copy)
    assert copy.net[0].weight.shape == (4, 1, 3, 3)
    scores = trainer.checkpoint_callback.best_k_models
    pruned = {path: scores[path] for path in scores if int(Path(path).stem[-1]) >= 2}
    content = torch.load(best(pruned, key=pruned.get), weights_only=True)
    assert torch.equal(copy.net[7].bias, content["state_dict"]["net.7.bias"])
    assert epochs == content["epoch"] + 1


def test_the_last_weights_are_kept_if_only_dense_checkpoints_are_left(
    tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    """It failed after the training, and nothing was converted."""
    trainer = fitted(make_trainer, tmp_path, "every")
    callback = trainer.checkpoint_callback
    dense = {path: v for path, v in callback.best_k_models.items() if Path(path).stem[-1] < "2"}
    callback.best_k_models = {**dense, str(tmp_path / "moved.ckpt"): torch.tensor(0.0)}
    module = ForeignModule()
    before = module.net[0].weight.clone()
    with pytest.warns(UserWarning, match="no checkpoint from epoch 2 on.* last weights"):
        assert load_best(trainer, module) is None
    assert torch.equal(module.net[0].weight, before)


class Template(ForeignModule):
    """Objects among the hyperparameters, as in the public templates."""

    def __init__(self, optimizer: Any, lr: float = 0.05) -> None:
        super().__init__(lr)
        self.save_hyperparameters()

    def configure_optimizers(self) -> Any:
        return self.hparams.optimizer(self.parameters())


class Listed(list):
    pass


class Extra(ForeignModule):
    def get_extra_state(self) -> Any:
        return partial(print)

    def set_extra_state(self, state: Any) -> None:
        pass


def test_objects_in_the_hyperparameters_are_passed_over(
    tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    """An UnpicklingError came after the whole training."""
    keep = ModelCheckpoint(tmp_path, "{epoch}", monitor="my_loss")
    trainer = make_trainer(max_epochs=1, callbacks=[keep], enable_checkpointing=True)
    module = Template(partial(torch.optim.SGD, lr=0.1))
    trainer.fit(module, loader(), loader(32, 1))
    copy = Template(None)
    assert load_best(trainer, copy) == 1
    assert torch.equal(copy.net[0].weight, module.net[0].weight)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            lambda: Template(Listed([torch.optim.SGD])),
            "cannot read the checkpoints of Template",
        ),
        (Extra, "cannot read _extra_state of the checkpoints of Extra"),
    ],
)
def test_what_cannot_be_read_at_the_end_is_refused_at_the_start(
    module: Callable[[], Any], words: str, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    keep = ModelCheckpoint(tmp_path, monitor="my_loss")
    quantizer = PostTrainingQuantization(weights="best")
    trainer = make_trainer(callbacks=[keep, quantizer], enable_checkpointing=True)
    with pytest.raises(CheckpointError, match=f"{words}.* use weights: last"):
        trainer.fit(module(), loader(), loader(32, 1))
    assert trainer.global_step == 0


def test_checkpoints_that_are_not_kept_are_told_at_the_start(make_trainer: MakeTrainer) -> None:
    def check(**options: Any) -> None:
        keep = ModelCheckpoint(monitor="my_loss", **options)
        callbacks = [keep, FilterPruning(0.5)]
        trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True)
        check_best(trainer, ForeignModule())

    with pytest.raises(CheckpointError, match="save_top_k is 0"):
        check(save_top_k=0)
    with pytest.warns(UserWarning, match="keeps 1 of all epochs by my_loss: .*pruned/my_loss"):
        check()
    check(save_top_k=-1)


def test_run_without_a_monitor_is_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(CheckpointError, match="ModelCheckpoint callback with a monitor"):
        check_best(make_trainer(), ForeignModule())
