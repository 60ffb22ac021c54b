"""The network in a LightningModule: its own forward, or the child with most of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_compress.errors import InvalidArgumentError, PatternError
from lit_compress.evaluation.export_target import find_export_target, warn_of_other_weights
from lit_compress.evaluation.network import named_module, network_paths, record_calls
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.pruning.layers import prunable_weights

MakeTrainer = Callable[..., Trainer]


class Heads(LightningModule):
    """Its steps call the body and a small head; there is no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ForeignModule().net
        self.head = nn.Linear(4, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.body(batch[0])), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self.head(self.body(batch[0]))
        self.log("my_acc", (scores.argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fitted(module: LightningModule, make_trainer: MakeTrainer) -> Trainer:
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, loader(), loader(32, 1))
    return trainer


def test_the_named_part_is_the_only_candidate() -> None:
    assert network_paths(Heads(), "head") == ["head"]
    with pytest.raises(InvalidArgumentError, match="no module 'x'; its children are: body, head"):
        network_paths(Heads(), "x")


def test_the_module_comes_before_its_main_child() -> None:
    assert network_paths(Heads(), None) == ["", "body"]
    assert network_paths(ForeignModule(), None) == ["", "net"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
def test_a_scripted_network_is_refused_by_name() -> None:
    """It was an error of inspect.signature, and of a pattern that matched nothing."""
    module = ForeignModule()
    module.net = torch.jit.script(module.net)
    for submodule in (None, "net"):
        with pytest.raises(InvalidArgumentError, match=r"net of ForeignModule is TorchScript"):
            network_paths(module, submodule)
    with pytest.raises(PatternError, match=r"outside TorchScript: net is a ScriptModule"):
        prunable_weights(module)


def test_two_halves_are_no_main_child() -> None:
    module = LightningModule()
    module.a, module.b = nn.Linear(2, 2), nn.Linear(2, 2)
    assert network_paths(module, None) == [""]


def test_the_empty_name_is_the_module_itself() -> None:
    module = Heads()
    assert named_module(module, "") is module
    assert named_module(module, "body.0") is module.body[0]


def test_calls_are_recorded_for_each_part_in_order(make_trainer: MakeTrainer) -> None:
    module = Heads()
    trainer = fitted(module, make_trainer)
    copy = clone(trainer, module)

    def keep(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
        return tuple(args[0].shape)

    calls = record_calls(trainer, copy, [loader(32, 1)], ["", "body", "head"], 2, keep)
    assert calls == {"body": [(16, 1, 8, 8)] * 2, "head": [(16, 4)] * 2}
    assert not any(part._forward_pre_hooks for part in copy.modules())


def test_the_main_child_is_exported_and_the_rest_is_named(make_trainer: MakeTrainer) -> None:
    """Pruning took this child and export refused it, for the same module."""
    module = Heads()
    trainer = fitted(module, make_trainer)
    copy = clone(trainer, module)
    target = find_export_target(trainer, copy, None, 1)
    assert (target.path, target.inner) == ("body", "body")
    with pytest.warns(UserWarning, match=r"of body alone.*2 parameters, such as head\.weight"):
        warn_of_other_weights(copy, target)


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_whole_network_is_not_warned_of(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    trainer = fitted(foreign, make_trainer)
    copy = clone(trainer, foreign)
    warn_of_other_weights(copy, find_export_target(trainer, copy, None, 1))
