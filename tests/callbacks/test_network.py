from collections.abc import Callable

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lit_compress.callbacks.evaluation import clone
from lit_compress.callbacks.network import Forward, find_network
from lit_compress.errors import ExportError


def found(make_trainer: Callable[..., Trainer], module: ForeignModule, batches: int = 2):  # noqa: ANN201
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, loader(), loader(48, 1))
    copy = clone(trainer, module)
    return find_network(trainer, copy, None, batches), copy


def test_the_child_that_computes_the_same_is_captured(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    network, copy = found(make_trainer, foreign)
    assert (network.path, network.inner) == ("", "net")
    assert network.captured(copy) is copy.net
    assert network.called(copy) is copy
    images = next(iter(loader(48, 1)))[0]
    assert len(network.inputs) == 2
    assert torch.equal(network.inputs[0], images)


def test_a_forward_that_does_more_is_captured_whole(
    make_trainer: Callable[..., Trainer],
) -> None:
    class Scaled(ForeignModule):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * 2

    network, copy = found(make_trainer, Scaled())
    captured = network.captured(copy)
    assert isinstance(captured, Forward)
    with torch.no_grad():
        assert torch.equal(captured(network.inputs[0]), copy.net(network.inputs[0]) * 2)


def test_two_inputs_are_refused_by_name(make_trainer: Callable[..., Trainer]) -> None:
    class Pair(ForeignModule):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
            return self.net(x) * scale

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            scores = self(batch[0], torch.ones(()))
            return nn.functional.cross_entropy(scores, batch[1])

        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            self(batch[0], torch.ones(()))

    with pytest.raises(ExportError, match=r"forward of Pair must take one tensor.*Tensor, Tensor"):
        found(make_trainer, Pair())
