"""One callback is the whole recipe, and keeps what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, Reversed, loader
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import lit_compress
from lit_compress.artifact import read_card
from lit_compress.callbacks import (
    Compress,
    CompressionReport,
    FilterPruning,
    KnowledgeDistillation,
    MagnitudePruning,
    PostTrainingQuantization,
    QuantizationAwareTraining,
)
from lit_compress.errors import InvalidArgumentError, ScheduleError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*the run ended before:UserWarning"),
]


class Wide(ForeignModule):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in ((1, 24), (24, 40), (40, 40)):
            layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 4))


def fit(module: LightningModule, folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    more = {name: options.pop(name) for name in ("ckpt_path",) if name in options}
    trainer = Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=str(folder),
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 9, **options},
    )
    trainer.fit(module, loader(256), loader(128, 1), **more)
    return trainer


@pytest.mark.trial_conversion
def test_one_callback_is_the_whole_recipe(tmp_path: Path) -> None:
    module = Wide()
    before = sum(weight.numel() for weight in module.parameters())
    callback = Compress("my_acc", target=0.6, max_drop=0.05, dirpath=str(tmp_path / "a"))
    trainer = fit(module, tmp_path, callback)
    assert [type(part) for part in callback.parts] == [
        FilterPruning,
        KnowledgeDistillation,
        QuantizationAwareTraining,
        CompressionReport,
    ]
    assert sum(weight.numel() for weight in module.parameters()) < 0.45 * before
    card = read_card(tmp_path / "a")
    found = {variant.name: variant for variant in card.variants}
    assert found["int8"].metric is not None
    assert found["int8"].metric.value >= found["dense"].metric.value - 0.05  # type: ignore
    assert card.pruning[0]["epochs"] == [3, 4, 5]
    assert card.config["PostTrainingQuantization"]["trained"] is True
    lit_compress.load(tmp_path / "a", check=True)
    trainer.validate(module, loader(128, 1), verbose=False)  # the same parts, not twice as many
    assert len([one for one in trainer.callbacks if isinstance(one, FilterPruning)]) == 1


def test_a_budget_of_bytes(tmp_path: Path) -> None:
    callback = Compress("my_acc", file_bytes=12_000, int8="after", dirpath=str(tmp_path / "a"))
    fit(Wide(), tmp_path, callback, max_epochs=4)
    assert 0.95 * 12_000 <= (tmp_path / "a" / "model.onnx").stat().st_size <= 12_000
    assert type(callback.parts[2]) is PostTrainingQuantization


def test_parts_that_are_there_are_used(tmp_path: Path) -> None:
    own = PostTrainingQuantization(monitor="my_acc", dirpath=str(tmp_path / "b"))
    callback = Compress("my_acc", target=0.3, distill=False)
    trainer = fit(Wide(), tmp_path, callback, own, max_epochs=3)
    kinds = [type(one) for one in trainer.callbacks]
    assert kinds.count(PostTrainingQuantization) == 1
    assert KnowledgeDistillation not in kinds
    assert (tmp_path / "b" / "model.onnx").is_file()


def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    def run(folder: str, epochs: int, **more: Any) -> Wide:
        torch.manual_seed(0)
        module = Wide()
        keep = ModelCheckpoint(tmp_path / folder, save_last=True)
        callback = Compress("my_acc", 0.5, dirpath=str(tmp_path / f"{folder}-{epochs}"))
        fit(module, tmp_path, callback, keep, _Stop(epochs), **more)
        return module

    whole = run("whole", 9).state_dict()
    for stopped in (7,):
        run(f"part{stopped}", stopped)
        last = str(tmp_path / f"part{stopped}" / "last.ckpt")
        resumed = run(f"part{stopped}", 9, ckpt_path=last).state_dict()
        for name, tensor in whole.items():
            assert torch.equal(tensor, resumed[name]), (stopped, name)


class _Stop(Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or trainer.current_epoch + 1 >= self.epochs


@pytest.mark.trial_conversion
def test_a_network_that_no_graph_trains_is_quantised_afterwards(tmp_path: Path) -> None:
    callback = Compress("my_acc", 0.3, dirpath=str(tmp_path / "a"))
    with pytest.warns(UserWarning, match="quantised after the training, since"):
        fit(Reversed(), tmp_path, callback, max_epochs=8)
    assert read_card(tmp_path / "a").config["PostTrainingQuantization"]["trained"] is False


@pytest.mark.parametrize(
    "arguments",
    [{"target": 0.5, "file_bytes": 9000}, {"target": 1.5}, {"max_drop": -0.1}, {"int8": "always"},
     {"dense_epochs": -1}, {"file_bytes": 10}],
)  # fmt: skip
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Compress("val_acc", **arguments)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="MagnitudePruning"):
        fit(ForeignModule(), tmp_path, Compress("my_acc"), MagnitudePruning(0.5))
    with pytest.raises(InvalidArgumentError, match="one Compress"):
        fit(ForeignModule(), tmp_path, Compress("my_acc"), Compress("my_acc"))
    with pytest.raises(ScheduleError, match="max_epochs to 5"):
        fit(ForeignModule(), tmp_path, Compress("my_acc", dense_epochs=3), max_epochs=4)
    with pytest.raises(ScheduleError, match=r"set trainer\.max_epochs"):
        fit(ForeignModule(), tmp_path, Compress("my_acc"), max_epochs=-1, max_steps=10)


@pytest.mark.trial_conversion
def test_fast_dev_run_does_all_of_it_once(tmp_path: Path) -> None:
    fit(Wide(), tmp_path, Compress("my_acc", dirpath=str(tmp_path / "a")), fast_dev_run=True)
    assert not (tmp_path / "a").exists()


def test_a_second_fit_goes_on_with_the_network_of_the_first(tmp_path: Path) -> None:
    """A second Trainer pruned the pruned network again, and called it dense."""
    module = Wide()
    callback = Compress("my_acc", 0.5, dirpath=str(tmp_path / "a"), int8="after")
    fit(module, tmp_path, callback, max_epochs=4)
    sizes = [tuple(weight.shape) for weight in module.parameters()]
    fit(module, tmp_path, callback, max_epochs=5)
    assert [tuple(weight.shape) for weight in module.parameters()] == sizes
    other = Wide()
    fit(other, tmp_path, callback, max_epochs=4)
    assert [tuple(weight.shape) for weight in other.parameters()] == sizes


def test_validation_needs_no_plan(tmp_path: Path) -> None:
    callback = Compress("my_acc", 0.5, dirpath=str(tmp_path / "a"))
    trainer = Trainer(
        accelerator="cpu", max_epochs=9, callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    module = Wide()
    Trainer(accelerator="cpu", callbacks=[Compress("my_acc")], logger=False,
            enable_progress_bar=False).validate(module, loader(16), verbose=False)  # fmt: skip
    trainer.validate(module, loader(16), verbose=False)
    trainer.fit(module, loader(64), loader(16))
    kinds = [type(one) for one in trainer.callbacks]
    assert kinds.count(FilterPruning) == 1
    assert kinds.count(QuantizationAwareTraining) == 1
    assert callback.parts[0].history  # type: ignore[attr-defined]


def test_arguments_of_parts_that_are_there_already_are_refused(tmp_path: Path) -> None:
    own = PostTrainingQuantization(monitor="my_acc")
    for callback in (Compress("my_acc", dirpath="b"), Compress("my_acc", max_drop=0.1)):
        with pytest.raises(InvalidArgumentError, match="give it there"):
            fit(Wide(), tmp_path, callback, own)
    with pytest.raises(InvalidArgumentError, match="give it there"):
        fit(Wide(), tmp_path, Compress("my_acc", baseline="x"), CompressionReport())


def test_distillation_may_stand_before_it(tmp_path: Path) -> None:
    fit(Wide(), tmp_path, KnowledgeDistillation(), Compress("my_acc", 0.3), max_epochs=3)
