"""Validation that processes share gives the numbers of one process, or one process does it all."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics import Metric, MetricCollection
from torchmetrics.aggregation import RunningMean
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassPrecision,
    MulticlassRecall,
)

from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.metric import measure_metric
from lit_compress.evaluation.ranks.validation import Task, Validated, validate_shared
from lit_compress.evaluation.run_view.copies import clone

from .one_process import as_one

#: 7 batches, the last of which is smaller.
EXAMPLES = 101


class Measured(ForeignModule):
    """Logs means, sums and extremes, metrics of torchmetrics, and one at the end of the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.acc = MulticlassAccuracy(4)
        self.area = MulticlassAUROC(4)  # keeps the scores of all images
        self.both = MetricCollection([MulticlassPrecision(4), MulticlassRecall(4)])
        self.late = MulticlassAccuracy(4, average="micro")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self(batch[0])
        loss = nn.functional.cross_entropy(scores, batch[1])
        self.log("val_loss", loss)
        self.log("by_step", loss, on_step=True, on_epoch=True)
        self.log("val_most", scores.max(), reduce_fx="max")
        self.log("val_sum", loss, reduce_fx=torch.sum)
        self.log("val_first", loss * (batch_idx == 0), batch_size=1)
        self.late.update(scores, batch[1])
        for metric in (self.acc, self.area):
            metric(scores, batch[1])
        self.both(scores, batch[1])
        self.log("val_acc", self.acc)
        self.log("val_area", self.area)
        self.log_dict(self.both)
        if self.trainer.is_global_zero:
            self.log("of_the_first", loss, rank_zero_only=True)

    def on_validation_epoch_end(self) -> None:
        self.log("val_late", self.late.compute())


def ran(make_trainer: Callable[..., Trainer], module: ForeignModule, data: Any = None) -> Trainer:
    trainer = make_trainer()
    trainer.validate(module, loader(EXAMPLES) if data is None else data, verbose=False)
    return trainer


def shared(trainer: Trainer, world: int, **task: Any) -> tuple[Validated, int]:
    """Return what a few processes found, and the number of requests that it took."""
    copy = clone(trainer, trainer.lightning_module)
    with as_one(trainer, world) as team:
        found = validate_shared(trainer, copy, validation_loaders(trainer), Task(**task))
    return found, len(team.requests)


@pytest.mark.parametrize("world", [2, 3, 7])
def test_all_metrics_are_those_of_one_process(
    make_trainer: Callable[..., Trainer], world: int
) -> None:
    trainer = ran(make_trainer, Measured())
    alone, none = shared(trainer, 8, target="net")
    found, requests = shared(trainer, world, target="net")
    assert (none, requests) == (0, 1), "7 batches are too few for 8 processes"
    assert found.metrics == alone.metrics  # bit for bit
    assert len(found.metrics) == 12
    assert sum(found.counts.images.values()) == sum(alone.counts.images.values()) == EXAMPLES
    assert found.counts.confusion.table == alone.counts.confusion.table is not None
    logged = {key: len(at) for key, at in found.position.logged.items()}
    assert logged == {key: len(at) for key, at in alone.position.logged.items()}


def test_a_limit_and_several_loaders_count_as_in_one_process(
    make_trainer: Callable[..., Trainer],
) -> None:
    class Two(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            super().validation_step(batch, batch_idx)

    trainer = ran(make_trainer, Two(), [loader(50), loader(EXAMPLES, 1)])
    alone, _ = shared(trainer, 100)
    found, requests = shared(trainer, 2)
    assert requests == 1
    assert found.metrics == alone.metrics
    assert len(found.metrics) == 4
    half = shared(trainer, 2, limit=0.5)
    assert half[1] == 1
    assert half[0].metrics == shared(trainer, 100, limit=0.5)[0].metrics
    assert half[0].metrics != found.metrics


def test_the_weights_of_the_copy_are_sent(make_trainer: Callable[..., Trainer]) -> None:
    trainer = ran(make_trainer, ForeignModule())
    copy = clone(trainer, trainer.lightning_module)
    for parameter in copy.parameters():
        parameter.data.mul_(-1)
    with as_one(trainer, 3) as team:
        found = measure_metric(trainer, copy, validation_loaders(trainer), "my_acc", copy.net)
    assert len(team.requests) == 1
    assert found == measure_metric(trainer, copy, validation_loaders(trainer), "my_acc", copy.net)
    assert found is not None
    assert found.n == EXAMPLES
    size = sum(tensor.numel() * tensor.element_size() for tensor in copy.state_dict().values())
    assert size < team.requests[0] < 2 * size + 20_000


class Zero:
    """Takes the place of a network."""

    def __call__(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 4)


def test_what_takes_the_place_of_the_network_is_sent_without_its_weights(
    make_trainer: Callable[..., Trainer],
) -> None:
    trainer = ran(make_trainer, ForeignModule())
    copy = clone(trainer, trainer.lightning_module)
    with as_one(trainer, 2) as team:
        found = measure_metric(
            trainer, copy, validation_loaders(trainer), "my_acc", copy.net, runner=Zero()
        )
        again = measure_metric(
            trainer,
            copy,
            validation_loaders(trainer),
            "my_acc",
            copy.net,
            runner=lambda x: Zero()(x),
        )
    assert len(team.requests) == 1, "a lambda cannot be sent"
    assert found == again
    assert found is not None
    assert found.value == pytest.approx(26 / EXAMPLES)
    assert team.requests[0] < 2000


class Listing(ForeignModule):
    def __init__(self) -> None:
        super().__init__()
        self.hits: list[float] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.hits += (self(batch[0]).argmax(1) == batch[1]).float().tolist()

    def on_validation_epoch_end(self) -> None:
        self.log("my_acc", sum(self.hits) / len(self.hits))
        self.hits.clear()


class Random(ForeignModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("my_acc", self(batch[0] + torch.rand(())).mean())


class SoFar(ForeignModule):
    def __init__(self) -> None:
        super().__init__()
        self.acc = MulticlassAccuracy(4)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.acc.update(self(batch[0]), batch[1])
        self.log("my_acc", self.acc.compute())


class Mean(Metric):
    """Joins its state by a mean, which unequal shares make wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("value", torch.tensor(0.0), dist_reduce_fx="mean")

    def update(self, hits: Tensor) -> None:
        self.value = 0.5 * self.value + hits.mean()

    def compute(self) -> Tensor:
        return self.value


class WithMetric(ForeignModule):
    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.metric.update((self(batch[0]).argmax(1) == batch[1]).float())
        self.log("my_acc", self.metric)


class Counting(ForeignModule):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.tensor(0))
        self.seen: Tensor

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen += len(self(batch[0]))
        self.log("my_acc", self.seen.float())


class Inside(ForeignModule):
    """Keeps its results in an object, as evaluators of detection do."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluator = type("Evaluator", (), {})()
        self.evaluator.found = {"scores": [torch.zeros(4)]}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluator.found["scores"].extend(self(batch[0]))
        self.log("my_acc", torch.stack(self.evaluator.found["scores"]).mean())


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Listing, "validation_step changes hits of the module"),
        (Inside, "validation_step changes evaluator of the module"),
        (Counting, "validation_step changes seen of the module"),
        (Random, "validation draws random numbers"),
        (SoFar, "validation_step computes a metric over the batches so far"),
        (lambda: WithMetric(Mean()), r"metric \(Mean\) has a state .*: value, by dim_zero_mean"),
        (lambda: WithMetric(RunningMean(3)), "changes metric|has a state"),
    ],
)
def test_steps_that_depend_on_each_other_run_in_one_process(
    module: Callable[[], ForeignModule],
    why: str,
    make_trainer: Callable[..., Trainer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = ran(make_trainer, module())
    alone, _ = shared(trainer, 100)
    caplog.set_level(logging.INFO)
    found, requests = shared(trainer, 2)
    assert found.metrics == alone.metrics
    assert requests == 1
    assert "validation runs in the first process alone, and the other 1 wait" in caplog.text
    assert re.search(why, caplog.text)
    assert shared(trainer, 2)[1] == 0, "it is tried once"


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        yield from stripes(40, 0)


class Listed(list[Any]):
    """A loader of the user's own."""

    def __init__(self, batches: Any) -> None:
        super().__init__(batches)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lambda: DataLoader(stripes(40, 0), 8, shuffle=True), "does not read the data in order"),
        (lambda: DataLoader(Stream(), 8), "its data are a stream"),
        (lambda: Listed(loader(40, batch_size=8)), "its loader is not a plain DataLoader"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*shuffling enabled")
def test_data_that_cannot_be_shared_are_read_by_one_process(
    data: Callable[[], Any],
    why: str,
    make_trainer: Callable[..., Trainer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = ran(make_trainer, ForeignModule(), data())
    caplog.set_level(logging.INFO)
    found, requests = shared(trainer, 2)
    assert not requests
    assert set(found.metrics) == {"my_loss", "my_acc"}
    assert why in caplog.text


def test_a_process_that_fails_leaves_the_validation_to_the_first(
    make_trainer: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    """The images of one machine may be missing."""

    class Broken(ForeignModule):
        fails = False

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            if batch_idx % 2 and type(self).fails:
                raise FileNotFoundError("no such image")
            super().validation_step(batch, batch_idx)

    trainer = ran(make_trainer, Broken())
    caplog.set_level(logging.INFO)
    Broken.fails = True
    with pytest.raises(FileNotFoundError, match="no such image"):
        shared(trainer, 2)
    assert "process 1 failed in it (FileNotFoundError: no such image)" in caplog.text
