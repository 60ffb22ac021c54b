from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from lit_compress.evaluation.recalibrate import recalibrate

MakeTrainer = Callable[..., Trainer]


class Recalibrate(Callback):
    """Estimates anew as the training starts, and notes what else changed."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.state: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        random, modes = torch.get_rng_state(), [m.training for m in pl_module.modules()]
        before = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
        recalibrate(trainer, pl_module, self.batches)
        self.state = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
        for name, tensor in before.items():
            if "running" not in name:
                assert torch.equal(tensor, self.state[name]), name
        assert torch.equal(torch.get_rng_state(), random)
        assert [m.training for m in pl_module.modules()] == modes
        assert not any(m._forward_pre_hooks for m in pl_module.modules())


@pytest.fixture
def statistics(make_trainer: MakeTrainer) -> Callable[..., dict[str, Tensor]]:
    def found(
        module: LightningModule, batches: int, data: Any = None, **options: Any
    ) -> dict[str, Tensor]:
        callback = Recalibrate(batches)
        trainer = make_trainer(
            **{"callbacks": [callback], "max_epochs": 1, "limit_train_batches": 1} | options
        )
        if isinstance(data, LightningDataModule):
            trainer.fit(module, datamodule=data)
        else:
            trainer.fit(module, data or loader(), loader(32, 1))
        return {name: tensor for name, tensor in callback.state.items() if "running" in name}

    return found


def naive(module: ForeignModule, batches: int, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """The plain average of the means and unbiased variances of the batches before the norm."""
    means, variances = [], []
    for images, _ in list(loader())[:batches]:
        with torch.no_grad():
            made = module.net[0](images * factor).movedim(1, 0).flatten(1)
        means.append(made.mean(1))
        variances.append(made.var(1))
    return torch.stack(means).mean(0), torch.stack(variances).mean(0)


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_statistics_are_the_average_over_batches(
    batches: int, foreign: ForeignModule, statistics: Callable[..., dict[str, Tensor]]
) -> None:
    foreign.net[1].running_mean.fill_(7)
    mean, variance = naive(foreign, batches)
    found = statistics(foreign, batches)
    torch.testing.assert_close(found["net.1.running_mean"], mean)
    torch.testing.assert_close(found["net.1.running_var"], variance)


def test_more_batches_than_there_are_is_all_of_them(
    foreign: ForeignModule, statistics: Callable[..., dict[str, Tensor]]
) -> None:
    mean, _ = naive(foreign, 4)
    torch.testing.assert_close(statistics(foreign, 100)["net.1.running_mean"], mean)


class Dropping(ForeignModule):
    def __init__(self) -> None:
        super().__init__()
        self.net.insert(0, nn.Dropout(0.9))


def test_dropout_stays_off(statistics: Callable[..., dict[str, Tensor]]) -> None:
    module = Dropping()
    plain = ForeignModule()
    plain.net.load_state_dict(
        {
            f"{int(name.split('.')[0]) - 1}.{name.split('.')[1]}": tensor
            for name, tensor in module.net.state_dict().items()
        }
    )
    mean, _ = naive(plain, 2)
    torch.testing.assert_close(statistics(module, 2)["net.2.running_mean"], mean)


class Extra(ForeignModule):
    """Norms that validation does not run, that keep no statistics, and that have no momentum."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.BatchNorm1d(4)
        self.head.running_mean.fill_(3.0)
        self.head.running_var.fill_(5.0)
        self.none = nn.BatchNorm2d(1, track_running_stats=False)
        self.net[1].momentum = 0.3

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.none(x))


def test_norms_that_are_not_run_keep_their_statistics(
    statistics: Callable[..., dict[str, Tensor]],
) -> None:
    """An auxiliary head is there in training only, and its statistics are not the reset ones."""
    module = Extra()
    found = statistics(module, 2)
    assert found["head.running_mean"].tolist() == [3.0] * 4
    assert found["head.running_var"].tolist() == [5.0] * 4
    assert found["net.1.running_mean"].any()
    assert module.net[1].momentum == 0.3


def test_a_network_without_batch_norms_is_left_alone(
    statistics: Callable[..., dict[str, Tensor]],
) -> None:
    module = ForeignModule()
    module.net[1] = nn.GroupNorm(2, 8)
    assert statistics(module, 2) == {}


def test_statistics_are_of_the_precision_of_the_module(
    foreign: ForeignModule, statistics: Callable[..., dict[str, Tensor]]
) -> None:
    mean, _ = naive(foreign, 2)
    found = statistics(foreign, 2, precision="bf16-true")["net.1.running_mean"]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), mean, rtol=0.05, atol=0.05)


class Seen(ForeignModule):
    """Notes the batches that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(float(batch[0].sum()))
        return super().training_step(batch, batch_idx)


class Data(LightningDataModule):
    """A datamodule with one loader whose generator goes on from epoch to epoch."""

    def __init__(self, kind: str, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        generator = None if kind == "global" else torch.Generator().manual_seed(3)
        if kind == "sampler":
            sampler = RandomSampler(stripes(64, 0), generator=generator)
            self.loader = DataLoader(stripes(64, 0), 16, sampler=sampler)
        else:
            self.loader = DataLoader(stripes(64, 0), 16, shuffle=True, generator=generator)

    def train_dataloader(self) -> DataLoader:
        return self.loader

    def val_dataloader(self) -> DataLoader:
        return loader(32, 1)


class Prepared(Data):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] * self.factor, batch[1]


@pytest.mark.parametrize("data", [Data, Prepared])
@pytest.mark.parametrize("kind", ["global", "loader", "sampler"])
def test_the_order_of_the_data_does_not_change(
    kind: str, data: type[Data], make_trainer: MakeTrainer
) -> None:
    orders = []
    for callbacks in ([], [Recalibrate(2)]):
        torch.manual_seed(0)
        module = Seen()
        make_trainer(callbacks=callbacks, max_epochs=2).fit(module, datamodule=data(kind))
        orders.append(module.seen)
    assert orders[0] == orders[1]
    assert len(set(orders[0])) == 8


def test_batches_go_through_the_hooks_of_the_datamodule(
    foreign: ForeignModule, statistics: Callable[..., dict[str, Tensor]]
) -> None:
    mean, variance = naive(foreign, 4, factor=3.0)
    data = Prepared("global", 3.0)
    data.loader = loader()
    found = statistics(foreign, 4, data)
    torch.testing.assert_close(found["net.1.running_mean"], mean)
    torch.testing.assert_close(found["net.1.running_var"], variance)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process only."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_synchronised_norms_are_estimated_on_one_process_alone(make_trainer: MakeTrainer) -> None:
    """In training mode, on the CPU, their own forward refuses to run in a process group."""
    module = ForeignModule()
    mean, _ = naive(module, 2)
    module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    trainer = make_trainer(max_epochs=1)
    trainer.strategy.connect(module)
    trainer._data_connector.attach_data(module, train_dataloaders=loader())
    trainer.fit_loop.setup_data()
    recalibrate(trainer, module, 2)
    torch.testing.assert_close(module.net[1].running_mean, mean)
