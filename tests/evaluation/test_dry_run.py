"""The user's own steps are tried on a pruned copy before the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.errors import InvalidArgumentError

MakeTrainer = Callable[..., Trainer]
Batch = tuple[Tensor, Tensor]


class Helped(ForeignModule):
    """Trains with a second head, which its forward does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.helper = nn.Linear(12, 4)
        self.steps = 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.steps += 1
        features = self.net[:5](batch[0])
        scores = self.net[5:](features) + self.helper(features.mean((2, 3)))
        return nn.functional.cross_entropy(scores, batch[1])


class Penalised(Helped):
    """Needs gradients inside its step, so it fails in a rehearsal, pruned or not."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = batch[0].requires_grad_()
        loss = nn.functional.cross_entropy(self(images), batch[1])
        (slope,) = torch.autograd.grad(loss, images, create_graph=True)
        return loss + slope.square().mean()


class Counting(ForeignModule):
    """Has no part that its forward does not use."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        COUNTED.append(len(batch[0]))
        return super().training_step(batch, batch_idx)


COUNTED: list[int] = []


def test_training_step_that_needs_the_widths_is_named_at_the_start(
    make_trainer: MakeTrainer,
) -> None:
    """It ended in an error of torch's after the first event."""
    module = Helped()
    trainer = make_trainer(callbacks=[FilterPruning(0.5, schedule=Schedule(1, 1))])
    with pytest.raises(InvalidArgumentError, match="training_step of Helped fails once channels"):
        trainer.fit(module, loader(), loader(32, 1))
    assert (module.steps, trainer.global_step) == (0, 0)
    excluded = FilterPruning(0.5, exclude=["net.3"])
    make_trainer(callbacks=[excluded]).fit(module, loader(), loader(32, 1))
    assert module.net[0].out_channels == 4


def test_validation_step_that_needs_the_widths_is_named_at_the_start(
    make_trainer: MakeTrainer,
) -> None:
    class Module(ForeignModule):
        def validation_step(self, batch: Batch, batch_idx: int) -> None:
            self(batch[0])
            self.net[3](torch.zeros(1, 8, 4, 4))

    with pytest.raises(InvalidArgumentError, match="validation_step of Module fails once channels"):
        make_trainer(callbacks=[FilterPruning(0.5)]).fit(Module(), loader(), loader(32, 1))


def test_step_that_fails_aside_anyhow_is_left_alone(make_trainer: MakeTrainer) -> None:
    module = Penalised()
    make_trainer(callbacks=[FilterPruning(0.5)]).fit(module, loader(), loader(32, 1))
    assert module.net[0].out_channels == 4


def test_one_training_step_is_tried(make_trainer: MakeTrainer) -> None:
    COUNTED.clear()
    trainer = make_trainer(max_epochs=1, callbacks=[FilterPruning(0.5)])
    trainer.fit(Counting(), loader(), loader(32, 1))
    assert COUNTED == [16] * 5


class Stream(IterableDataset):
    """Gives each batch once."""

    def __init__(self) -> None:
        self.batches = list(loader())
        self.read = 0

    def __iter__(self) -> Iterator[Batch]:
        while self.batches:
            self.read += 1
            yield self.batches.pop()


def test_no_batch_of_a_stream_is_taken(make_trainer: MakeTrainer) -> None:
    stream, module = Stream(), Helped()
    pruner = FilterPruning(0.5, exclude=["net.3"], schedule=Schedule(shape="one_shot"))
    trainer = make_trainer(max_epochs=1, callbacks=[pruner])
    trainer.fit(module, DataLoader(stream, batch_size=None), loader(32, 1))
    assert module.steps == stream.read == 4
