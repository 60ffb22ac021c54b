"""Batch norms' statistics: the plain average of what a naive loop sees, and nothing else moves."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from lit_compress.callbacks.recalibrate import recalibrate

MakeTrainer = Callable[..., Trainer]
DATA = stripes(48, 3)


class Again(Callback):
    """Estimates the statistics anew at the start of an epoch."""

    def __init__(self, batches: int = 3, epoch: int = 0) -> None:
        self.batches = batches
        self.epoch = epoch
        self.after: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
            recalibrate(trainer, pl_module, self.batches)
            after = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
            assert torch.equal(before[0], after[0])
            assert before[1:] == after[1:]
            self.after = {n: t.detach().clone() for n, t in pl_module.state_dict().items()}


class Normed(ForeignModule):
    """Two batch norms, the second behind what the first gives; dropout, which must not count."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)),
            *(nn.Linear(72, 6), nn.BatchNorm1d(6, momentum=0.3), nn.ReLU(), nn.Linear(6, 4)),
        )
        self.lr = 0.0
        self.seen: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen += batch[0][:, 0, 0, 0].tolist()
        return super().training_step(batch, batch_idx)


@torch.no_grad()
def average(net: nn.Sequential, batches: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the mean over batches of each norm's batch mean and unbiased variance."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for x in batches:
        for name, layer in net.named_children():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                dims = [0, *range(2, x.dim())]
                mean, variance = x.mean(dims), x.var(dims)
                found.setdefault(name, []).append((mean, variance))
                shape = [-1] + [1] * (x.dim() - 2)
                biased = x.var(dims, correction=0).view(shape)
                x = (x - mean.view(shape)) / (biased + layer.eps).sqrt()
                x = x * layer.weight.view(shape) + layer.bias.view(shape)
            elif not isinstance(layer, nn.Dropout):
                x = layer(x)
    return {
        name: tuple(torch.stack(values).mean(0) for values in zip(*pairs, strict=True))
        for name, pairs in found.items()
    }


@pytest.fixture
def module() -> Normed:
    torch.manual_seed(0)
    made = Normed()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    return made


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
@pytest.mark.parametrize("batches", [1, 3, 9])
def test_statistics_are_the_average_over_batches(
    batches: int, precision: Any, module: Normed, make_trainer: MakeTrainer
) -> None:
    again = Again(batches)
    trainer = make_trainer(max_steps=1, callbacks=[again], precision=precision)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    trainer.fit(module, DataLoader(DATA, batch_size=16), loader(32, 1))
    expected = average(module.float().net, list(DATA.tensors[0].split(16))[:batches])
    assert expected.keys() == {"1", "6"}
    for name, (mean, variance) in expected.items():
        torch.testing.assert_close(again.after[f"net.{name}.running_mean"].float(), mean)
        torch.testing.assert_close(again.after[f"net.{name}.running_var"].float(), variance)
    for name, tensor in again.after.items():
        if "running" not in name:
            assert torch.equal(tensor, before[name].to(tensor.dtype)), name


def shuffled(kind: str) -> DataLoader:
    generator = torch.Generator().manual_seed(5)
    if kind == "global":
        return DataLoader(DATA, batch_size=8, shuffle=True)
    if kind == "loader":
        return DataLoader(DATA, batch_size=8, shuffle=True, generator=generator)
    sampler = RandomSampler(DATA, generator=generator)
    if kind == "sampler":
        return DataLoader(DATA, batch_size=8, sampler=sampler)
    if kind == "batch_sampler":
        return DataLoader(DATA, batch_sampler=BatchSampler(sampler, 8, False))
    return DataLoader(
        DATA,
        batch_size=8,
        shuffle=True,
        generator=generator,
        num_workers=1,
        persistent_workers=True,
    )


class Own(LightningDataModule):
    """Gives a new loader each time, all with one generator; and transfers batches its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(7)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(DATA, batch_size=8, shuffle=True, generator=self.generator)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize(
    "kind", ["global", "loader", "sampler", "batch_sampler", "workers", "datamodule"]
)
def test_the_order_of_data_does_not_change(
    kind: str, epoch: int, make_trainer: MakeTrainer
) -> None:
    """Generators of batch samplers used to move, and persistent workers to lose their place."""

    def seen(*callbacks: Callback) -> list[float]:
        torch.manual_seed(1)
        module = Normed()
        trainer = make_trainer(max_epochs=3, callbacks=[*callbacks])
        trainer.fit(module, Own() if kind == "datamodule" else shuffled(kind))
        return module.seen

    whole = seen()
    assert len(whole) == 3 * len(DATA)
    assert seen(Again(2, epoch)) == whole


class Branches(Normed):
    """A head that validation never calls, and a norm that keeps no statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.BatchNorm1d(2)
        self.head.running_mean.fill_(3)
        self.free = nn.BatchNorm2d(1, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.free(x))


def test_norms_that_saw_nothing_keep_what_they_have(make_trainer: MakeTrainer) -> None:
    """Their mean used to become 0 and their variance 1."""
    again, module = Again(), Branches()
    make_trainer(max_steps=1, callbacks=[again]).fit(module, loader(), loader(16, 1))
    assert again.after["head.running_mean"].tolist() == [3, 3]
    assert again.after["net.1.running_mean"].abs().min() > 0
    assert module.free.running_mean is None


class Synchronised(Normed):
    """Trains without its norms: those that synchronise do not work on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.net[1] = nn.SyncBatchNorm(8)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.net[0](batch[0]).sum()


def test_synchronised_norms_are_estimated_by_one_process(make_trainer: MakeTrainer) -> None:
    """They used to refuse the CPU, or to wait for the other processes."""
    again, module = Again(), Synchronised()
    make_trainer(max_steps=1, callbacks=[again]).fit(module, DataLoader(DATA, batch_size=16))
    means = [module.net[0](x).mean((0, 2, 3)) for x in DATA.tensors[0].split(16)]
    torch.testing.assert_close(again.after["net.1.running_mean"], torch.stack(means).mean(0))


def test_a_module_without_batch_norms_is_left_alone(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    foreign.net[1] = nn.Identity()
    before = {name: tensor.clone() for name, tensor in foreign.state_dict().items()}
    again = Again()
    make_trainer(max_steps=1, callbacks=[again]).fit(foreign, loader())
    assert all(torch.equal(again.after[name], tensor) for name, tensor in before.items())
