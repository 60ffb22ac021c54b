"""The last epochs run as the int8 file does, and the file is what was trained."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import ForeignModule, ManualModule, Reversed, loader, stripes
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

import lit_compress
from lit_compress import Schedule
from lit_compress.artifact import read_card
from lit_compress.callbacks import (
    FilterPruning,
    KnowledgeDistillation,
    MagnitudePruning,
    PostTrainingQuantization,
    QuantizationAwareTraining,
)
from lit_compress.errors import ExportError, InvalidArgumentError, ScheduleError
from lit_compress.trainer import Trainer as CompressTrainer

IMAGES = torch.stack([image for image, _ in stripes(1000, 7)])


def fit(make_trainer: Any, module: LightningModule, *callbacks: Callback, **options: Any) -> Any:
    more = {name: options.pop(name) for name in ("ckpt_path",) if name in options}
    options["enable_checkpointing"] = any(isinstance(c, ModelCheckpoint) for c in callbacks)
    trainer = make_trainer(callbacks=list(callbacks), **options)
    trainer.fit(module, loader(256), loader(64, 1), **more)
    return trainer


def classes(path: Path, optimized: bool) -> np.ndarray:
    """Return the classes that a file gives, by onnxruntime alone."""
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    found: np.ndarray = session.run(None, {"input": IMAGES.numpy()})[0]
    return found.argmax(1)


def trained_classes(callback: QuantizationAwareTraining, module: LightningModule) -> np.ndarray:
    module.eval()
    with torch.no_grad(), callback.fake_quantized(module):
        found: np.ndarray = module(IMAGES).argmax(1).numpy()
    return found


def test_the_file_is_the_network_that_was_trained(
    foreign: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    """Pruned, distilled, then trained so: one fit, and the same optimizer all the way."""
    callback = QuantizationAwareTraining(monitor="my_acc", first=6, dirpath=str(tmp_path / "a"))
    pruner = FilterPruning(0.3, schedule=Schedule(first=2, last=3))
    before = dict(foreign.named_parameters())
    trainer = fit(make_trainer, foreign, pruner, KnowledgeDistillation(), callback, max_epochs=12)
    assert trainer.optimizers[0].param_groups[0]["params"] == list(before.values())
    assert "forward" not in vars(foreign)
    assert "training_step" not in vars(trainer.strategy)
    found = trained_classes(callback, foreign)
    file = tmp_path / "a" / "model.onnx"
    assert (found == classes(file, optimized=False)).mean() >= 0.999
    assert (found == classes(file, optimized=True)).mean() >= 0.995
    card = read_card(tmp_path / "a")
    assert card.config["PostTrainingQuantization"]["trained"] is True
    assert card.config["PostTrainingQuantization"]["first"] == 6
    int8 = next(variant for variant in card.variants if variant.name == "int8")
    assert int8.fidelity is not None
    assert int8.fidelity.fake_quantized
    assert int8.fidelity.sqnr_db > 30
    assert int8.metric is not None
    assert int8.metric.value > 0.9
    lit_compress.load(tmp_path / "a", check=True)


class Watch(Callback):
    """Notes what is logged, and whether the norms' statistics move."""

    def __init__(self) -> None:
        self.logged: list[float] = []
        self.statistics: list[Tensor] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.logged.append(float(trainer.callback_metrics["my_loss"]))
            self.statistics.append(pl_module.net[1].running_mean.clone())  # type: ignore


def test_validation_sees_the_file_and_norms_keep_their_statistics(
    foreign: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    watch = Watch()
    callback = QuantizationAwareTraining(first=2, freeze=3, dirpath=str(tmp_path / "a"))
    fit(make_trainer, foreign, callback, watch, max_epochs=5)
    moved = [not torch.equal(*pair) for pair in pairwise(watch.statistics)]
    assert moved == [True, True, False, False]
    data = stripes(64, 1)
    inputs, labels = data.tensors
    with torch.no_grad(), callback.fake_quantized(foreign.eval()):
        loss = nn.functional.cross_entropy(foreign(inputs), labels)
    assert float(loss) == pytest.approx(watch.logged[-1], abs=1e-4)
    with torch.no_grad():
        assert float(nn.functional.cross_entropy(foreign(inputs), labels)) != float(loss)


@pytest.mark.filterwarnings("ignore:.*the run ended before:UserWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
def test_a_resumed_run_ends_in_the_same_bits(make_trainer: Any, tmp_path: Path) -> None:
    def run(folder: str, epochs: int, **more: Any) -> ForeignModule:
        torch.manual_seed(0)
        module = ForeignModule()
        keep = ModelCheckpoint(tmp_path / folder, save_last=True)
        callback = QuantizationAwareTraining(
            first=2, freeze=4, dirpath=str(tmp_path / f"{folder}-{epochs}")
        )
        pruner = MagnitudePruning(0.5, schedule=Schedule(0, 1))
        stop = {"max_epochs": 7, "limit_train_batches": 8}
        fit(make_trainer, module, pruner, callback, keep, _Stop(epochs), **stop, **more)
        return module

    whole = run("whole", 7)
    for stopped in (3, 5):
        run(f"part{stopped}", stopped)
        last = str(tmp_path / f"part{stopped}" / "last.ckpt")
        resumed = run(f"part{stopped}", 7, ckpt_path=last)
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), (stopped, name)
        files = [tmp_path / f"{name}-7" / "model.onnx" for name in ("whole", f"part{stopped}")]
        assert files[0].read_bytes() == files[1].read_bytes()


class _Stop(Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or trainer.current_epoch + 1 >= self.epochs


def test_masks_hold_and_manual_optimization_goes_on(make_trainer: Any, tmp_path: Path) -> None:
    module = ManualModule()
    callback = QuantizationAwareTraining(first_step=24, dirpath=str(tmp_path / "a"))
    pruner = MagnitudePruning(0.5, schedule=Schedule(shape="one_shot"))
    fit(make_trainer, module, pruner, callback, max_epochs=3)
    weights = [p for n, p in module.named_parameters() if p.dim() > 1]
    zeros = sum(int((w == 0).sum()) for w in weights)
    assert zeros == pytest.approx(0.5 * sum(w.numel() for w in weights), abs=1)
    found = trained_classes(callback, module)
    assert (found == classes(tmp_path / "a" / "model.onnx", optimized=False)).mean() >= 0.999


@pytest.mark.filterwarnings("ignore:QuantizationAwareTraining. the run ended:UserWarning")
def test_a_run_that_ends_before_is_quantised_after_it(
    foreign: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    callback = QuantizationAwareTraining(first=3, dirpath=str(tmp_path / "a"))
    fit(make_trainer, foreign, callback, _Stop(2), max_epochs=5)
    assert not callback.active
    card = read_card(tmp_path / "a")
    assert card.config["PostTrainingQuantization"]["trained"] is False
    with (
        pytest.raises(InvalidArgumentError, match="after the fit"),
        callback.fake_quantized(foreign),
    ):
        pass


@pytest.mark.filterwarnings("ignore:weights. best takes only:UserWarning")
def test_best_weights_are_those_with_the_final_ranges(
    foreign: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    keep = ModelCheckpoint(tmp_path, monitor="my_loss", save_top_k=-1)
    callback = QuantizationAwareTraining(
        first=1, freeze=3, weights="best", dirpath=str(tmp_path / "a")
    )
    fit(make_trainer, foreign, callback, keep, max_epochs=5)
    assert callback.final_since == 3
    assert read_card(tmp_path / "a").variants[-1].epoch in (4, 5)


def test_a_checkpoint_is_converted_with_the_ranges_it_was_trained_with(
    foreign: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    keep = ModelCheckpoint(tmp_path, save_last=True)
    callback = QuantizationAwareTraining(first=2, dirpath=str(tmp_path / "a"))
    fit(make_trainer, foreign, callback, keep, max_epochs=3)
    trainer = CompressTrainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[PostTrainingQuantization()],
    )
    trainer.quantize(
        ForeignModule(),
        loader(64, 1),
        ckpt_path=str(tmp_path / "last.ckpt"),
        dirpath=str(tmp_path / "b"),
    )
    files = [(tmp_path / name / "model.onnx").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def refused(make_trainer: Any, module: LightningModule, *callbacks: Callback, **more: Any) -> str:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises((InvalidArgumentError, ScheduleError, ExportError)) as error:
        fit(make_trainer, module, *callbacks, **{"max_epochs": 4, **more})
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    return str(error.value)


@pytest.mark.parametrize(
    ("callbacks", "expected"),
    [
        (lambda: [FilterPruning(0.3, schedule=Schedule(0, 2)), QuantizationAwareTraining(first=2)],
         "Set first to 3 or more"),
        (lambda: [QuantizationAwareTraining(first=4)], "the run has 4 epochs"),
        (lambda: [QuantizationAwareTraining(first_step=64)], "the run has 64 training steps"),
        (lambda: [FilterPruning(0.3, schedule=Schedule(0, 1)),
                  QuantizationAwareTraining(first_step=31)], "ends at step 32"),
        (lambda: [FilterPruning(0.3, shrink="end"), QuantizationAwareTraining()], "shrink"),
        (lambda: [FilterPruning(0.3), KnowledgeDistillation(features=["net.3"]),
                  QuantizationAwareTraining()], "remove features"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_the_training(
    foreign: ForeignModule, make_trainer: Any, callbacks: Callable[[], Any], expected: str
) -> None:
    assert expected in refused(make_trainer, foreign, *callbacks())


@pytest.mark.parametrize(
    "arguments",
    [{"first": 1, "first_step": 3}, {"freeze": 1, "freeze_step": 3}, {"first": -1},
     {"first": 3, "freeze": 2}, {"first": True}],
)  # fmt: skip
def test_arguments_that_contradict_each_other_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        QuantizationAwareTraining(**arguments)


@pytest.mark.trial_conversion
def test_hooks_of_layers_are_refused(foreign: ForeignModule, make_trainer: Any) -> None:
    foreign.net[3].register_forward_hook(lambda *_: None)
    assert "net.3 has hooks" in refused(make_trainer, foreign, QuantizationAwareTraining())


class Detached(ForeignModule):
    """Trains a part of its network."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.net[:3](x)
        out: Tensor = self.net[3:](x.detach())
        return out


@pytest.mark.trial_conversion
def test_what_has_no_gradient_is_not_trained(make_trainer: Any, tmp_path: Path) -> None:
    module = Detached()
    before = module.net[0].weight.detach().clone()  # weight decay needs a gradient, too
    callback = QuantizationAwareTraining(first=1, dirpath=str(tmp_path / "a"))
    fit(make_trainer, module, callback, max_epochs=2)
    assert torch.equal(module.net[0].weight, before)


class Auxiliary(nn.Sequential):
    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return (out, x) if self.training else out


class TwoWays(ForeignModule):
    """Has a network that returns two outputs in training, as GoogLeNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Auxiliary(*self.net)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # type: ignore[override]
        return nn.functional.cross_entropy(self(batch[0])[0], batch[1])


class InParts(ForeignModule):
    """Calls its layers one by one in training."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # type: ignore[override]
        out = batch[0]
        for layer in self.net:
            out = layer(out)
        return nn.functional.cross_entropy(out, batch[1])


@pytest.mark.trial_conversion
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Reversed, "gets another gradient"),
        (TwoWays, "let the forward return the same in training"),
        (InParts, "does not call its forward"),
    ],
)
def test_networks_that_cannot_be_trained_so_are_refused(
    kind: type[ForeignModule], expected: str, make_trainer: Any
) -> None:
    assert expected in refused(make_trainer, kind(), QuantizationAwareTraining())


class Random(nn.Sequential):
    """Doubles its inputs at random in training."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(()) < 0.5:
            x = x * 2
        out: Tensor = super().forward(x)
        return out


@pytest.mark.trial_conversion
def test_random_parts_that_rest_are_named(
    foreign: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    foreign.net = Random(*foreign.net)
    callback = QuantizationAwareTraining(dirpath=str(tmp_path / "a"))
    with pytest.warns(UserWarning, match="random in training"):
        fit(make_trainer, foreign, callback, max_epochs=2)


class Shifted(ForeignModule):
    """Changes its inputs in training, before the network."""

    shifts = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.shifts += 1
            x = x.roll(1, -1)
        out: Tensor = self.net(x)
        return out


@pytest.mark.trial_conversion
def test_what_a_forward_does_in_training_goes_on(make_trainer: Any, tmp_path: Path) -> None:
    module = Shifted()
    fit(make_trainer, module, QuantizationAwareTraining(first=1, dirpath=str(tmp_path / "a")),
        max_epochs=2)  # fmt: skip
    assert module.shifts == 32


@pytest.mark.trial_conversion
def test_the_trial_leaves_the_run_alone(make_trainer: Any, tmp_path: Path) -> None:
    weights = []
    for trial in (True, False):
        torch.manual_seed(0)
        module = ForeignModule()
        callback = QuantizationAwareTraining(first=2, dirpath=str(tmp_path / str(trial)))
        if not trial:
            callback._dry_run = lambda *_: None  # type: ignore[method-assign]
            callback._try_out = lambda *_: None  # type: ignore[method-assign]
        fit(make_trainer, module, callback, KnowledgeDistillation(ForeignModule()), max_epochs=3)
        weights.append(module.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


class Frozen(ForeignModule):
    """A part whose norm is kept in eval mode, and one whose norm trains."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3),
            nn.BatchNorm2d(12, momentum=None), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Dropout(0.5), nn.Linear(12, 4),
        )  # fmt: skip

    def on_train_batch_start(self, *_: Any) -> None:
        self.net[1].eval()
        self.net[8].eval()


def test_each_norm_and_dropout_has_the_mode_of_its_module(
    make_trainer: Any, tmp_path: Path
) -> None:
    """One frozen norm froze all, and a dropout that was switched off dropped."""
    runs = []
    for aware in (False, True):
        torch.manual_seed(0)
        module = Frozen()
        callback = QuantizationAwareTraining(first=0, freeze=3, dirpath=str(tmp_path / "a"))
        fit(make_trainer, module, *([callback] if aware else []), max_epochs=3)
        runs.append(module)
    plain, trained = (run.net for run in runs)
    assert torch.equal(trained[1].running_mean, torch.zeros(8))
    assert not torch.equal(trained[4].running_var, torch.ones(12))
    assert trained[4].num_batches_tracked == plain[4].num_batches_tracked == 48
    callback._fake.batched = True  # type: ignore[union-attr]
    module.train()
    module.net[8].eval()
    module.net[4].eval()
    module.net[1].eval()
    with torch.no_grad(), callback.fake_quantized(module):
        assert torch.equal(module(IMAGES[:50]), module(IMAGES[:50]))


def test_layers_that_are_skipped_train_in_float(
    foreign: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    for skip in ("*", "first"):
        callback = QuantizationAwareTraining(
            first=1, skip=[skip], dirpath=str(tmp_path / skip.replace("*", "all"))
        )
        fit(make_trainer, foreign, callback, max_epochs=2)
        found = trained_classes(callback, foreign)
        file = tmp_path / skip.replace("*", "all") / "model.onnx"
        assert (found == classes(file, optimized=False)).mean() >= 0.999


def test_learned_rounding_is_for_after_the_training() -> None:
    with pytest.raises(InvalidArgumentError, match="rounding: learned"):
        QuantizationAwareTraining(rounding="learned")


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")
def test_a_checkpoint_of_the_last_batch_of_an_epoch_goes_on_in_the_same_bits(
    make_trainer: Any, tmp_path: Path
) -> None:
    """Lightning then leaves out the start of the next epoch: steps of a schedule were late."""

    def run(folder: str, **more: Any) -> tuple[ForeignModule, list[Any]]:
        torch.manual_seed(0)
        module = ForeignModule()
        keep = ModelCheckpoint(
            tmp_path / folder, "{step}", every_n_train_steps=8, save_top_k=-1,
            auto_insert_metric_name=False,
        )  # fmt: skip
        callback = QuantizationAwareTraining(
            first=3, freeze=4, dirpath=str(tmp_path / f"{folder}a")
        )
        pruner = MagnitudePruning(0.5, schedule=Schedule(1, 2, shape="linear"))
        stop = {"max_epochs": 5, "limit_train_batches": 8}
        fit(make_trainer, module, pruner, callback, keep, **stop, **more)
        return module, [int(step["epoch"]) for step in pruner.history]

    whole, epochs = run("whole")
    assert epochs == [1, 2]
    for step in (8, 24):
        resumed, found = run("again", ckpt_path=str(tmp_path / "whole" / f"{step}.ckpt"))
        assert found == epochs
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), (step, name)
