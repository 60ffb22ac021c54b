"""Scores of changed networks: those of a plain loop, to the last bit, whatever the module does."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.importance import importance_of
from lit_compress.sensitivity import trials as module_of_measure
from lit_compress.sensitivity.sample import draw
from lit_compress.sensitivity.targets import Target, channel_targets, weight_targets
from lit_compress.sensitivity.trials import TrialRunner

WHOLE_NETWORK = "run the whole network, because a run from"


class DictsAndCollections(ForeignModule):
    """Mappings as batches, a metric, a collection, log_dict, and a mean that adds in place."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.acc = MulticlassAccuracy(4, average="micro")
        self.same = self.acc  # one metric with two names
        self.mean = MeanMetric()
        self.more = MetricCollection({"f1": MulticlassF1Score(4), "top": MulticlassAccuracy(4)})
        self.held = nn.ModuleDict({"val": MulticlassAccuracy(4)})

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        scores = self(batch["image"])
        self.same(scores, batch["label"])
        self.held["val"].update(scores, batch["label"])
        self.log("acc", self.same, prog_bar=True)
        self.log("own", self.held["val"].compute())
        self.log("held", self.held["val"])
        self.mean(F.cross_entropy(scores, batch["label"]))
        self.log("mean_loss", self.mean)
        self.more(scores, batch["label"])
        self.log_dict(self.more)
        self.log_dict({"sum": scores.sum(), "double": scores.double().mean(), "one": 1})


class Tangled(ForeignModule):
    """A layer used twice, tied weights, in-place operations, several outputs, an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.tied, self.embed = nn.Linear(6, 4, bias=False), nn.Embedding(4, 6)
        self.tied.weight = self.embed.weight
        self.net = nn.Sequential(nn.Linear(6, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.stem(x).relu_()
        y = self.twice(self.twice(x))
        y += x
        x.mul_(0.5)
        pooled = (x + y).mean((2, 3))
        return self.net(pooled), {"tied": self.tied(pooled.tanh_())}

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        batch[0].mul_(2)  # the batch itself
        first, more = self(batch[0])
        self.log("my_acc", (first.argmax(-1) == batch[1]).float().mean())
        self.log("loss", F.cross_entropy(more["tied"], batch[1]), batch_size=3)


class Noisy(ForeignModule):
    """Random numbers before, in and behind the network, of three kinds."""

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x = batch[0] + 0.3 * torch.randn_like(batch[0])
        for layer in self.net:
            x = F.dropout(layer(x), 0.2, training=True)
        x = x + 0.1 * torch.rand_like(x) + random.random() * np.random.rand()
        super_loss = F.cross_entropy(x, batch[1])
        self.log("loss", super_loss)
        self.log("my_acc", (x.argmax(-1) == batch[1]).float().mean())


class Teacher(ForeignModule):
    """Another network is scored, and added up, before the one that is pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.net)
        self.theirs, self.ours = MulticlassAccuracy(4), MulticlassAccuracy(4)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        scores = self.teacher(batch[0])
        self.theirs.update(scores, batch[1])
        self.log("now", self.theirs.compute())
        self.log("teacher_acc", self.theirs)
        self.log("mean", batch[0].mean())
        mine = self.net(batch[0])
        self.ours(mine, batch[1])
        self.log("my_acc", self.ours)
        self.log("gap", F.mse_loss(mine, scores))


class Branching(ForeignModule):
    """What is called depends on values, so a pruned network may go another way."""

    def __init__(self) -> None:
        super().__init__()
        self.behind = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(x)
        return self.behind(x) if float(x.sum()) > self.at else x.tanh().relu()

    at = 0.0


class Choosing(ForeignModule):
    """Which of two values is used again depends on what is pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(64, 4), nn.Linear(64, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x.flatten(1)), self.two(x.flatten(1))
        both = (one + two).mean()
        x = self.net(x)
        return x + self.last(one if float(x.sum()) > self.at else two) + both

    at = 0.0


class Stateful(ForeignModule):
    """A norm that counts in validation too, and a buffer that is put anew."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.net[1].train()
        self.seen = self.seen + 1
        super().validation_step(batch, batch_idx)
        self.log("seen", self.seen)


class Batch:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y


class OwnBatches(ForeignModule):
    """Batches of the user's own class, moved and prepared by hooks."""

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, index: int) -> Batch:
        return Batch(batch.x.to(device), batch.y.to(device))

    def on_after_batch_transfer(self, batch: Batch, index: int) -> tuple[Tensor, Tensor]:
        return batch.x * 2, batch.y


class Hooks(ForeignModule):
    """Measures at the end of the epoch."""

    def on_validation_epoch_start(self) -> None:
        self.outputs: list[Tensor] = []

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.outputs.append((self(batch[0]).argmax(-1) == batch[1]).float())

    def on_validation_epoch_end(self) -> None:
        self.log("my_acc", torch.cat(self.outputs).mean())


class Largest(ForeignModule):
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("largest", self(batch[0]).max(), reduce_fx="max")


class OnStep(ForeignModule):
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("top", self(batch[0]).max(), on_step=True, on_epoch=True)


class SlightlyOther(ForeignModule):
    """Logs a thousandth more where a loop of Lightning runs it."""

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("my_loss", loss * (1.001 if self._current_fx_name else 1))


class InTheLoopOnly(ForeignModule):
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if not self._current_fx_name:
            raise RuntimeError("only in a loop")
        super().validation_step(batch, batch_idx)


class Loader:
    """Gives the batches of a list, and draws no random numbers for it."""

    def __init__(self, given: list[Any]) -> None:
        self.given = given

    def __iter__(self) -> Iterator[Any]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)


def batches(case: type) -> list[Any]:
    found = list(loader(40, batch_size=16))
    if case is DictsAndCollections:
        return [{"image": x, "label": y} for x, y in found]
    if case is OwnBatches:
        return [Batch(x, y) for x, y in found]
    return found


def quiet_trainer() -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def naive(module: LightningModule, data: list[Any], values: dict[str, Tensor]) -> dict[str, float]:
    """Copy, change, and validate by a plain Trainer."""
    twin, data = copy.deepcopy(module), copy.deepcopy(data)
    own = named_tensors(twin)
    for name, value in values.items():
        own[name].data.copy_(value)
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    trainer = quiet_trainer()
    trainer.validate(twin, Loader(data), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module_of_measure, "rank_zero_info", lines.append)
    return lines


def measured(
    module: LightningModule,
    data: list[Any],
    cached: bool = True,
    targets: list[Target] | None = None,
) -> tuple[TrialRunner, list[Target]]:
    trainer = quiet_trainer()
    trainer.validate(copy.deepcopy(module), Loader(copy.deepcopy(data)), verbose=False)
    targets = targets or weight_targets(module, "element")
    names = [target.tensors for target in targets]
    return TrialRunner(trainer, module, draw(data, None), names, cached), targets


CASES: dict[type[ForeignModule], str] = {
    ForeignModule: "",
    DictsAndCollections: "",
    Tangled: "",
    OwnBatches: "",
    Stateful: "",
    Teacher: "",
    Branching: "",
    Choosing: "",
    Noisy: "trials of net.3.weight run the whole network, because a run from",
    Hooks: "whole validation, because the module overrides other validation hooks",
    Largest: "whole validation, because largest is logged with reduce_fx='max'",
    OnStep: "whole validation, because validation_step on its own logs another top_(step|epoch)",
    SlightlyOther: "whole validation, because validation_step on its own logs another my_loss",
    InTheLoopOnly: r"does not run by itself \(RuntimeError: only in a loop\)",
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_a_plain_loop_to_the_last_bit(
    case: type[ForeignModule], said: list[str]
) -> None:
    torch.manual_seed(0)
    module, data = case(), batches(case)
    before = copy.deepcopy(module.state_dict())
    measure, targets = measured(module, data)
    baseline = naive(module, data, {})
    assert measure.baseline == pytest.approx(baseline, rel=0, abs=0)
    ratios = [Fraction(9, 10), Fraction(3, 10)]
    for target in targets:
        for ratio in ratios:
            values = dict(target.pruned(ratio)[0])
            found = measure.scores(values)
            assert found == naive(module, data, values), (target.name, ratio)
    assert measure.scores({}) == baseline or measure.whole
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    if CASES[case]:
        assert re.search(CASES[case], "\n".join(said))
    else:
        assert said == [] or case in (Branching, Choosing)


@pytest.mark.parametrize("case", [ForeignModule, DictsAndCollections, Tangled, Teacher, Stateful])
def test_what_comes_before_a_layer_is_not_run_again(
    case: type[ForeignModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, data = case(), batches(case)
    measure, targets = measured(module, data)
    target = targets[-2]
    values = dict(target.pruned(Fraction(1, 2))[0])
    first = measure.scores(values)
    calls: list[str] = []
    for name in ("conv2d", "linear"):
        real = getattr(F, name)

        def counted(*args: Any, _name: str = name, _real: Any = real) -> Any:
            calls.append(_name)
            return _real(*args)

        monkeypatch.setattr(torch.nn.functional, name, counted)
    cut = measure._cut(frozenset(values))
    assert cut > 0
    assert measure.scores(values) == first


def test_a_changed_network_that_goes_another_way_is_run_whole(said: list[str]) -> None:
    """It was given rubbish in the place of a value that was not kept."""
    torch.manual_seed(0)
    module, data = Choosing(), batches(Choosing)
    name = "net.7.bias"
    for shift in (100.0, -100.0):
        module.net[7].bias.data.fill_(shift)  # all batches go one way
        target = Target(name, (name,), 4, None, None, lambda _: ({}, 0))
        measure, _ = measured(module, data, targets=[target])
        assert measure._cut(frozenset([name])) > 0
        values = {name: torch.full((4,), -shift)}
        assert measure.scores(values) == naive(module, data, values)
    assert any("run the whole network if a run from call" in line for line in said)


def test_too_little_memory_makes_trials_slower_and_not_other(
    monkeypatch: pytest.MonkeyPatch, foreign: ForeignModule
) -> None:
    data = batches(ForeignModule)
    plain, targets = measured(foreign, data, cached=False)
    for memory in (0, 40 * 12 * 16 * 4 + 40 * 4 * 8):
        monkeypatch.setattr(module_of_measure, "MEMORY", memory)
        measure, _ = measured(foreign, data)
        for target in targets:
            values = dict(target.pruned(Fraction(1, 2))[0])
            assert measure.scores(values) == plain.scores(values)


def test_channels_of_many_readers_are_cut_where_the_first_is_read(said: list[str]) -> None:
    class Fork(ForeignModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
            self.late, self.early = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 3, padding=1)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.net(x)
            return self.head((self.early(x).relu() + self.late(x)).mean((2, 3)))

    torch.manual_seed(0)
    module, data = Fork(), batches(Fork)
    targets = channel_targets(module, data[0][0][:2], "", importance_of("l2"), "l2")
    measure, _ = measured(module, data, targets=targets)
    for target in targets:
        values = dict(target.pruned(Fraction(1, 2))[0])
        assert set(values) == set(target.tensors)
        assert measure._cut(frozenset(values)) > 0
        assert measure.scores(values) == naive(module, data, values)


def test_the_random_state_of_the_run_is_left_alone(foreign: ForeignModule) -> None:
    data = batches(ForeignModule)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    measure, targets = measured(foreign, data)
    measure.scores(dict(targets[0].pruned(Fraction(1, 2))[0]))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
