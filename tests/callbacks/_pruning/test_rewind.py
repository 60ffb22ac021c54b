"""Lottery tickets: what stays goes back to where it was early on, in every callback that prunes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, MagnitudePruning, RulePruning
from lit_compress.callbacks._pruning.rewind import Rewind, reinitialize_linear
from lit_compress.errors import CheckpointError, InvalidArgumentError

MakeTrainer = Callable[..., Trainer]
TWICE = Schedule(first=1, last=3, every=2, shape="linear")


class Spy(Callback):
    """Notes the weights at the start of each epoch, after the callbacks before it."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, torch.Tensor]] = []
        self.states: list[int] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs.append({n: t.clone() for n, t in pl_module.state_dict().items()})
        self.states.append(len(trainer.optimizers[0].state))


@pytest.mark.parametrize(("rewind", "epoch"), [("init", 0), ("epoch 1", 1)])
def test_weights_that_stay_go_back_and_the_others_are_zero(
    rewind: str, epoch: int, foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    before, after = Spy(), Spy()
    pruning = MagnitudePruning(0.5, TWICE, rewind=rewind)
    make_trainer(max_epochs=5, callbacks=[before, pruning, after]).fit(foreign, loader())
    early = before.epochs[epoch]
    for event in (1, 3):
        for name, tensor in after.epochs[event].items():
            if name in pruning.masks:
                zero = tensor == 0
                assert zero.any()
                assert torch.equal(tensor[~zero], early[name][~zero]), (event, name)
            else:
                assert torch.equal(tensor, early[name]), (event, name)
        assert after.states[event] == 0  # momentum was of other weights
    assert not torch.equal(before.epochs[4]["net.3.weight"], after.epochs[3]["net.3.weight"])


@pytest.mark.parametrize("shrink", ["every", "end"])
def test_channels_leave_the_copy_too(
    shrink: Any, foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    before, after = Spy(), Spy()
    pruning = FilterPruning(0.5, schedule=TWICE, shrink=shrink, rewind="init")
    trainer = make_trainer(max_epochs=5, callbacks=[before, pruning, after])
    trainer.fit(foreign, loader(), loader(16, 1))
    start, ticket = before.epochs[0], after.epochs[3]
    whole = {tuple(row.flatten().tolist()) for row in start["net.0.weight"]}
    kept = [row for row in ticket["net.0.weight"] if row.any()]
    assert len(kept) == 4
    assert all(tuple(row.flatten().tolist()) in whole for row in kept)
    assert foreign.net[0].weight.shape[0] == 4


def fit(folder: Path, epochs: int, ckpt_path: Path | None = None, **options: Any) -> ForeignModule:
    seed_everything(1, verbose=False)
    module = ForeignModule()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[
            RulePruning(target=0.5, schedule=TWICE, **options),
            ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_last=False),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(), loader(16, 1), ckpt_path=ckpt_path)
    return module


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # meant: another folder
@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")  # five runs, one folder
@pytest.mark.parametrize("options", [{"rewind": "epoch 1"}, {"reinitialize": "linear"}])
def test_a_resumed_run_goes_back_to_the_same_weights(tmp_path: Path, options: Any) -> None:
    whole = fit(tmp_path, 5, **options)
    for epoch in range(4):
        resumed = fit(tmp_path / "again", 5, tmp_path / f"epoch={epoch}.ckpt", **options)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), (epoch, name)
    content = torch.load(tmp_path / "epoch=4.ckpt", weights_only=True)
    (state,) = (v for k, v in content["callbacks"].items() if k.startswith("RulePruning"))
    assert "rewind" not in state  # after the last event the copy is not needed


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # meant: another folder
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")  # meant too
def test_a_checkpoint_without_the_copy_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, 5)
    with pytest.raises(CheckpointError, match=r"'init' needs the weights of epoch 0"):
        fit(tmp_path / "again", 5, tmp_path / "epoch=1.ckpt", rewind="init")


@pytest.mark.parametrize("spec", ["start", "epoch", "epoch -1", "epoch 1.5", 3, "epoch 1\n"])
def test_a_wrong_word_is_refused(spec: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="rewind must be 'init', or 'epoch k'"):
        Rewind(spec)


def test_an_epoch_after_the_first_pruning_is_refused(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    pruning = MagnitudePruning(0.5, TWICE, rewind="epoch 2")
    with pytest.raises(InvalidArgumentError, match="first pruning step is at epoch 1"):
        make_trainer(max_epochs=5, callbacks=[pruning]).fit(foreign, loader())


def test_linear_layers_are_drawn_anew_as_the_original_code_does() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(100, 50), nn.Linear(50, 3, False)
    )
    conv, state = net[0].weight.clone(), torch.random.get_rng_state()
    reinitialize_linear(net)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(net[0].weight, conv)
    assert 0.099 < net[2].weight.abs().max() <= 0.1
    assert abs(float(net[2].weight.detach().mean())) < 0.005
    assert not net[2].bias.any()
    drawn = net[2].weight.clone()
    reinitialize_linear(net)
    assert torch.equal(net[2].weight, drawn)  # on every process the same
