"""What is recorded of each epoch, and that recording changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_compress import Schedule
from lit_compress.callbacks import CompressionReport, FilterPruning
from lit_compress.callbacks._report import history
from lit_compress.callbacks._report.history import History, count_layers

MakeTrainer = Callable[..., Trainer]


@pytest.mark.parametrize(
    ("layer", "zero", "channels"),
    [
        (nn.Conv2d(4, 6, 3), [0, 2], 4),
        (nn.Conv1d(4, 6, 3, groups=2), [5], 5),
        (nn.Linear(3, 5), [1], 4),
        (nn.ConvTranspose2d(4, 6, 2), [3, 4], 4),
        (nn.ConvTranspose2d(4, 6, 2, groups=2), [0, 4], 4),
    ],
)
def test_channels_are_those_that_the_outputs_show(
    layer: nn.Module, zero: list[int], channels: int
) -> None:
    weight = layer.weight
    with torch.no_grad():
        for channel in zero:
            if isinstance(layer, nn.ConvTranspose2d):
                width = 6 // layer.groups
                group, own = divmod(channel, width)
                inputs = 4 // layer.groups
                weight[group * inputs : (group + 1) * inputs, own] = 0  # type: ignore[index]
            else:
                weight[channel] = 0  # type: ignore[index]
        if layer.bias is not None:
            layer.bias.zero_()  # type: ignore[operator]
        shapes = {nn.Linear: (9, 3), nn.Conv1d: (9, 4, 5)}
        outputs = layer(torch.randn(shapes.get(type(layer), (9, 4, 5, 5))))
        outputs = outputs.movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
    found = count_layers(nn.Sequential(layer))
    assert found.channels == {"0": channels} == {"0": int(outputs.any(1).sum())}
    assert found.weights == {"0": int((weight != 0).sum())}


def test_a_weight_that_is_computed_is_not_read() -> None:
    """To read the weight of a spectral norm in training moves its vectors, and so the training."""
    net = nn.Sequential(spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert list(count_layers(net).channels) == ["1"]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_layers_are_counted_once_an_epoch(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were counted at each validation too."""
    calls: list[nn.Module] = []

    def counted(module: nn.Module) -> object:
        calls.append(module)
        return count_layers(module)

    monkeypatch.setattr(history, "count_layers", counted)
    report = CompressionReport("my_acc")
    options = {"max_epochs": 3, "val_check_interval": 1}
    make_trainer(callbacks=[report], **options).fit(ForeignModule(), loader(), loader(32, 1))
    assert len(calls) == 3


@pytest.mark.parametrize("order", [1, -1])
def test_a_network_that_is_pruned_at_once_was_larger(order: int, make_trainer: MakeTrainer) -> None:
    """Its first recorded epoch was taken for the unpruned network."""
    report = CompressionReport("my_acc")
    callbacks = [report, FilterPruning(0.5, schedule=Schedule(first=0, last=1))][::order]
    module = ForeignModule()
    make_trainer(max_epochs=3, callbacks=callbacks).fit(module, loader(), loader(32, 1))
    assert report.card
    assert report.card.unpruned == count_layers(ForeignModule())
    first, *_, last = report.card.history
    assert first.pruned
    assert first.layers
    assert first.layers.channels["net.0"] < 8
    assert last.parameters == sum(p.numel() for p in module.parameters())


class Saved(Callback):
    """Keeps what a checkpoint at the end of each validation would have."""

    def __init__(self, report: CompressionReport) -> None:
        self.report, self.states = report, list[dict]()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.states.append(self.report.state_dict()["history"])


def test_a_checkpoint_at_the_end_of_a_validation_has_its_epoch(make_trainer: MakeTrainer) -> None:
    seed_everything(0, verbose=False)
    report = CompressionReport("my_acc")
    saved = Saved(report)
    make_trainer(max_epochs=2, callbacks=[report, saved]).fit(
        ForeignModule(), loader(), loader(32, 1)
    )
    assert [len(state["epochs"]) for state in saved.states] == [1, 2]
    restored = History()
    restored.restore(saved.states[0])
    assert restored.epochs[0].metric == report.card.history[0].metric  # type: ignore[union-attr]
    restored.restore({})
    assert not restored.epochs
