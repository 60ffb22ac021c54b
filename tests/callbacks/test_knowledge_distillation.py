"""The network learns from a teacher, and the user's module stays as it is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress import Schedule, distillation_loss
from lit_compress.callbacks import (
    FilterPruning,
    KnowledgeDistillation,
    MagnitudePruning,
)
from lit_compress.errors import CheckpointError, InvalidArgumentError

QUIET: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}


def fit(
    module: LightningModule,
    *callbacks: Any,
    epochs: int = 2,
    folder: Path | None = None,
    **more: Any,
) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=folder is not None,
        default_root_dir=str(folder or "."),
        **QUIET,
    )
    trainer.fit(module, more.pop("data", loader(32)), loader(16, 1), **more)
    return trainer


class _Stop(Callback):
    """Stops after some epochs."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epoch


def by_hand(module: ForeignModule, teacher: nn.Module, epochs: int, temperature: float) -> None:
    """Distil in a plain loop: the sum of both losses, the teacher in eval mode."""
    optimizer = module.configure_optimizers()
    teacher = copy.deepcopy(teacher).eval()
    module.train()
    for _ in range(epochs):
        for images, labels in loader(32):
            scores = module(images)
            with torch.no_grad():
                soft = (teacher(images) / temperature).softmax(1)
            ours = (scores / temperature).log_softmax(1)
            kl = (soft * (soft.log() - ours)).sum(1).mean() * temperature**2
            optimizer.zero_grad()
            (nn.functional.cross_entropy(scores, labels) + 0.7 * kl).backward()
            optimizer.step()


def test_a_fit_is_a_plain_loop_with_both_losses() -> None:
    torch.manual_seed(0)
    module, teacher = ForeignModule(), ForeignModule()
    expected, before = copy.deepcopy(module), copy.deepcopy(teacher.state_dict())
    callback = KnowledgeDistillation(teacher.net, temperature=3.0, weight=0.7)
    attributes = dict(vars(module))
    trainer = fit(module, callback)
    by_hand(expected, teacher.net, 2, 3.0)
    for one, other in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(v, before[n]) for n, v in teacher.state_dict().items())
    assert "training_step" not in vars(trainer.strategy)
    assert vars(module).keys() - attributes.keys() <= {"_trainer", "_fabric", "_hparams"}
    assert trainer.callback_metrics["compress/distillation_loss"] > 0


def test_without_a_teacher_it_is_the_network_before_pruning(capsys: Any) -> None:
    torch.manual_seed(0)
    module = ForeignModule()
    seen: dict[str, Tensor] = {}

    class Watch(KnowledgeDistillation):
        def before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.update({n: t.clone() for n, t in pl_module.state_dict().items()})
            super().before_pruning(trainer, pl_module)

    watch = Watch(features=["net.3"])
    fit(module, FilterPruning(0.5, schedule=Schedule(first=1, last=2)), watch, epochs=4)
    assert watch._teacher is not None
    kept = watch._teacher.module.state_dict()
    assert kept.keys() == seen.keys()
    assert all(torch.equal(kept[name], seen[name]) for name in seen)
    assert module.net[3].out_channels == 6
    assert watch._call_loss.kinds == [("classes", 1)]


@pytest.mark.filterwarnings("ignore:.*the run ended before its schedule did")
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_resumed_fit_ends_in_equal_weights(tmp_path: Path) -> None:
    """The teacher of the first fit is in the checkpoint; the network is pruned by then."""

    def callbacks() -> list[Any]:
        pruning = FilterPruning(0.5, schedule=Schedule(first=1, last=3))
        return [pruning, KnowledgeDistillation(ramp=2, features=["net.0", "net.3"])]

    torch.manual_seed(0)
    module, start = ForeignModule(), ForeignModule().state_dict()
    module.load_state_dict(start)
    fit(module, *callbacks(), epochs=5, folder=tmp_path / "whole")
    for stop in (1, 2, 4):
        again = ForeignModule()
        again.load_state_dict(start)

        folder = tmp_path / str(stop)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=5,
            callbacks=[*callbacks(), _Stop(stop)],
            default_root_dir=str(folder),
            logger=False,
            **QUIET,
        )
        trainer.fit(again, loader(32), loader(16, 1))
        trainer.save_checkpoint(folder / "last.ckpt")
        other = ForeignModule()
        fit(other, *callbacks(), epochs=5, ckpt_path=str(folder / "last.ckpt"))
        for one, two in zip(other.parameters(), module.parameters(), strict=True):
            assert torch.equal(one, two), stop


def test_a_checkpoint_can_be_the_teacher(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = ForeignModule()
    trainer = fit(dense, folder=tmp_path)
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    callback = KnowledgeDistillation(str(tmp_path / "dense.ckpt"))
    fit(ForeignModule(), callback)
    assert callback._teacher is not None
    for name, value in callback._teacher.module.state_dict().items():
        assert torch.equal(value, dense.state_dict()[name])
    with pytest.raises(CheckpointError, match="teacher"):
        fit(ForeignModule(), KnowledgeDistillation(str(tmp_path / "missing.ckpt")))


class Manual(ForeignModule):
    def __init__(self, helps: bool) -> None:
        super().__init__()
        self.automatic_optimization, self.helps = False, helps

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.manual_backward(loss + distillation_loss(self) if self.helps else loss)
        optimizer.step()


def test_manual_optimization_asks_for_the_loss() -> None:
    torch.manual_seed(0)
    teacher = ForeignModule().net
    manual, automatic = Manual(True), ForeignModule()
    automatic.load_state_dict(manual.state_dict())
    fit(manual, KnowledgeDistillation(teacher))
    fit(automatic, KnowledgeDistillation(teacher))
    for one, other in zip(manual.parameters(), automatic.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(InvalidArgumentError, match=r"add lit_compress\.distillation_loss"):
        fit(Manual(False), KnowledgeDistillation(teacher))
    fit(Manual(True))  # without the callback it is 0


class Dictionary(ForeignModule):
    def forward(self, x: Tensor) -> Any:
        return {"scores": self.net(x), "size": x.mean((1, 2, 3))}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = nn.functional.cross_entropy(self(batch[0])["scores"], batch[1])
        return {"loss": loss, "other": 3}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("my_acc", self(batch[0])["scores"].mean())


def test_several_outputs_and_a_loss_in_a_dictionary() -> None:
    callback = KnowledgeDistillation()
    fit(Dictionary(), FilterPruning(0.25), callback)
    assert callback._call_loss.kinds == [("classes", 1), ("values", 1)]


@pytest.mark.parametrize(
    ("outputs", "labels", "kind"),
    [
        ((4, 5, 5), torch.randint(0, 4, (16, 5, 5)), ("classes", 1)),
        ((3,), torch.tensor([[1.0, 0, 1]]).repeat(16, 1), ("labels", 1)),
        ((2,), torch.randn(16, 2), ("values", 1)),
    ],
    ids=["segmentation", "multi-label", "regression"],
)
def test_the_labels_say_what_outputs_mean(
    outputs: tuple[int, ...], labels: Tensor, kind: tuple[str, int]
) -> None:
    class Task(ForeignModule):
        def __init__(self) -> None:
            super().__init__()
            size = torch.Size(outputs).numel()
            self.net = nn.Sequential(
                nn.Flatten(),
                nn.Linear(64, 8),
                nn.ReLU(),
                nn.Linear(8, size),
                nn.Unflatten(1, outputs),
            )

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            scores = self(batch[0])
            if batch[1].is_floating_point():
                return nn.functional.mse_loss(scores, batch[1])
            return nn.functional.cross_entropy(scores, batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("my_acc", self.training_step(batch, batch_idx))

    if kind[0] == "labels":
        labels = (torch.rand(16, 3) > 0.5).float()
    images = torch.randn(16, 1, 8, 8)
    data = DataLoader(TensorDataset(images, labels), batch_size=8)
    callback = KnowledgeDistillation()
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
                      callbacks=[FilterPruning(0.25), callback], **QUIET)  # fmt: skip
    trainer.fit(Task(), data, data)
    assert callback._call_loss.kinds == [kind]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature must be a number above 0"),
        ({"weight": -1}, "weight must be a number of at least 0"),
        ({"weight": float("nan")}, "weight must be a number"),
        ({"feature_weight": True}, "feature_weight must be a number"),
        ({"outputs": "scores"}, "outputs must be one of auto, classes, labels, values"),
        ({"features": "net.3"}, "features must be a list"),
        ({"ramp": -1}, "ramp must be a whole number"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        KnowledgeDistillation(**arguments)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (KnowledgeDistillation(), "nothing prunes here: give teacher"),
        (
            KnowledgeDistillation(nn.Flatten()),
            "the teacher returns 16 x 64, and the network 16 x 4",
        ),
        (KnowledgeDistillation(nn.Linear(3, 4)), "cannot be called as the network is"),
        (KnowledgeDistillation(nn.Flatten(), features=["nothing"]), "has no layer 'nothing'"),
        (KnowledgeDistillation(nn.Flatten(), features=["net.3"]), "teacher has no layer 'net.3'"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(
    callback: KnowledgeDistillation, message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        fit(ForeignModule(), callback)


def test_a_step_that_calls_no_network_is_refused() -> None:
    class Bare(ForeignModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.net[-1].bias.square().sum()

    with pytest.raises(InvalidArgumentError, match="nothing to distil"):
        fit(Bare(), KnowledgeDistillation(nn.Flatten()))


def test_weights_rise_from_the_first_epoch_on() -> None:
    callback = KnowledgeDistillation(nn.Flatten(), first=2, ramp=3)
    callback._teacher = object()  # type: ignore[assignment]

    class At:
        current_epoch = 0

    found = []
    for epoch in range(7):
        At.current_epoch = epoch
        found.append(callback._factor(At))  # type: ignore[arg-type]
    assert found == [0, 0, 0.25, 0.5, 0.75, 1, 1]


def test_zeroing_weights_has_a_teacher_too() -> None:
    callback = KnowledgeDistillation()
    fit(ForeignModule(), MagnitudePruning(0.5), callback)
    assert callback._teacher is not None


class Tokens(ForeignModule):
    """Classes of tokens along the last axis, as language models give them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.squeeze(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]).transpose(1, 2), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("my_acc", self.training_step(batch, batch_idx))


@pytest.mark.parametrize("outputs", ["auto", "classes"])
def test_classes_are_along_the_axis_that_the_labels_show(outputs: Any) -> None:
    """With outputs="classes" the softmax was over the tokens."""
    data = DataLoader(
        TensorDataset(torch.randn(16, 1, 8, 8), torch.randint(0, 5, (16, 8))), batch_size=8
    )
    callback = KnowledgeDistillation(outputs=outputs, features=["net.0"])
    trainer = Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
                      callbacks=[FilterPruning(0.25), callback], **QUIET)  # fmt: skip
    trainer.fit(Tokens(), data, data)
    assert callback._call_loss.kinds == [("classes", 2)]


def test_the_teacher_of_the_user_stays_as_it_is() -> None:
    """teacher=module.net froze the network itself."""
    module = ForeignModule()
    fit(module, FilterPruning(0.25), KnowledgeDistillation(module.net))
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert module.net[3].out_channels == 9


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_the_teacher_has_the_precision_of_the_run(precision: Any) -> None:
    trainer = Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
                      callbacks=[FilterPruning(0.25), KnowledgeDistillation()],
                      precision=precision, **QUIET)  # fmt: skip
    trainer.fit(ForeignModule(), loader(32), loader(16, 1))
    assert trainer.callback_metrics["compress/distillation_loss"].isfinite()


def test_features_of_layers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"net\.2 has no weight"):
        fit(ForeignModule(), FilterPruning(0.25), KnowledgeDistillation(features=["net.2"]))
    pruned = ForeignModule()
    trainer = fit(pruned, FilterPruning(0.5), folder=tmp_path)
    trainer.save_checkpoint(tmp_path / "pruned.ckpt")
    callback = KnowledgeDistillation(str(tmp_path / "pruned.ckpt"), features=["net.3"])
    with pytest.raises(InvalidArgumentError, match="take a teacher that is not pruned"):
        fit(ForeignModule(), callback)
