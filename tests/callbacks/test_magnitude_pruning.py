import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ForeignModule, ManualModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import nn

from lit_compress import Schedule
from lit_compress.callbacks import MagnitudePruning
from lit_compress.errors import (
    CheckpointError,
    InvalidArgumentError,
    PatternError,
    ScheduleError,
)
from lit_compress.pruning import prunable_weights

ONCE = Schedule(shape="one_shot")


def zeros(module: nn.Module) -> int:
    return sum(int((weight == 0).sum()) for weight in prunable_weights(module).values())


def total(module: nn.Module) -> int:
    return sum(weight.numel() for weight in prunable_weights(module).values())


class Spy(Callback):
    """Notes the share of zeros after every step and at the end of every epoch."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.epochs: list[float] = []
        self.revived = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append(zeros(pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs.append(zeros(pl_module) / total(pl_module))


def test_the_target_is_the_final_share_and_never_compounds(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    spy, pruning = Spy(), MagnitudePruning(0.8, Schedule(first=1, last=3, shape="linear"))
    make_trainer(max_epochs=6, callbacks=[spy, pruning]).fit(foreign, loader())
    expected = [0, 0.8 / 3, 1.6 / 3, 0.8, 0.8, 0.8]
    assert spy.epochs == pytest.approx(expected, abs=1 / total(foreign))
    assert pruning.reached == pytest.approx(0.8, abs=1 / total(foreign))


def test_weights_stay_exactly_zero_after_every_step_and_the_rest_learn(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    """Momentum and weight decay revived pruned weights in the original code's dense steps."""
    spy, pruning = Spy(), MagnitudePruning(0.5, ONCE)
    before = copy.deepcopy(foreign.state_dict())
    make_trainer(callbacks=[pruning, spy]).fit(foreign, loader())
    assert set(spy.steps) == {-(-total(foreign) // 2)}
    for name, mask in pruning.masks.items():
        weight = foreign.get_parameter(name)
        assert not weight[~mask].any()
        assert (weight != before[name])[mask].all()


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 3},
        {"gradient_clip_val": 0.1},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
    ],
)
def test_other_ways_to_train(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], options: dict
) -> None:
    spy = Spy()
    trainer = make_trainer(callbacks=[MagnitudePruning(0.7, ONCE, "local"), spy], **options)
    trainer.fit(foreign, loader())
    assert len(set(spy.steps)) == 1


def test_manual_optimization_with_two_optimizers(make_trainer: Callable[..., Trainer]) -> None:
    spy, module = Spy(), ManualModule()
    make_trainer(callbacks=[MagnitudePruning(0.6, ONCE), spy]).fit(module, loader())
    assert set(spy.steps) == {-(-total(module) * 6 // 10)}


def test_include_and_exclude(foreign: ForeignModule, make_trainer: Callable[..., Trainer]) -> None:
    pruning = MagnitudePruning(0.5, ONCE, include=["net.*"], exclude=["net.0", "net.7"])
    make_trainer(callbacks=[pruning]).fit(foreign, loader())
    assert list(pruning.masks) == ["net.3.weight"]
    assert zeros(foreign) == foreign.net[3].weight.numel() // 2


def test_two_callbacks_side_by_side_and_never_on_one_tensor(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    convs = MagnitudePruning(0.5, ONCE, exclude=["net.7"])
    head = MagnitudePruning(0.25, ONCE, include=["net.7"])
    make_trainer(callbacks=[convs, head]).fit(foreign, loader())
    assert int((foreign.net[7].weight == 0).sum()) == 12
    both = [MagnitudePruning(0.5, ONCE), MagnitudePruning(0.25, ONCE, include=["net.7"])]
    with pytest.raises(InvalidArgumentError, match=r"two MagnitudePruning callbacks prune net\.7"):
        make_trainer(callbacks=both).fit(foreign, loader())


def fit(folder: Any, epochs: int, ckpt_path: str | None = None) -> ForeignModule:
    seed_everything(1, verbose=False)
    module = ForeignModule()
    checkpoint = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_last=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[MagnitudePruning(0.75, Schedule(0, 3)), checkpoint],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(), ckpt_path=ckpt_path)
    return module


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # meant: another folder
@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")  # five runs, one folder
def test_resuming_from_any_epoch_is_bit_identical(tmp_path: Any) -> None:
    whole = fit(tmp_path, 6)
    for epoch in range(5):
        resumed = fit(tmp_path / "again", 6, str(tmp_path / f"epoch={epoch}.ckpt"))
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), (epoch, name)


def test_a_checkpoint_loads_without_the_callback_and_runs_no_code(tmp_path: Any) -> None:
    whole = fit(tmp_path, 6)
    content = torch.load(tmp_path / "epoch=5.ckpt", weights_only=True)
    plain = ForeignModule()
    plain.load_state_dict(content["state_dict"])
    assert zeros(plain) == zeros(whole) == -(-total(whole) * 3 // 4)
    (state,) = (v for k, v in content["callbacks"].items() if k.startswith("MagnitudePruning"))
    packed = sum(mask.numel() for mask in state["masks"].values())
    assert packed <= total(whole) / 8 + 3


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # meant: another folder
def test_masks_of_another_architecture_are_refused(tmp_path: Any) -> None:
    fit(tmp_path, 6)
    path = tmp_path / "epoch=4.ckpt"
    content = torch.load(path, weights_only=True)
    (key,) = (key for key in content["callbacks"] if key.startswith("MagnitudePruning"))
    masks = content["callbacks"][key]["masks"]
    masks["net.9.weight"] = masks.pop("net.7.weight")
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"differ in 2 names, such as net.7.weight"):
        fit(tmp_path / "again", 6, str(path))


def test_a_run_that_ends_early_says_what_it_reached(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    pruning = MagnitudePruning(0.5, Schedule(0, 7, shape="linear"))
    trainer = make_trainer(max_epochs=10, max_steps=8, callbacks=[pruning])
    with pytest.warns(UserWarning, match=r"reached 0.12 of 0.50: the run ended before"):
        trainer.fit(foreign, loader())


def test_fast_dev_run_prunes_at_once(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    trainer = make_trainer(fast_dev_run=True, callbacks=[MagnitudePruning(0.5, Schedule(5, 9))])
    trainer.fit(foreign, loader())
    assert zeros(foreign) == -(-total(foreign) // 2)


def test_the_share_is_logged_and_can_be_monitored(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    trainer = make_trainer(callbacks=[MagnitudePruning(0.5, ONCE)])
    trainer.fit(foreign, loader())
    logged = float(trainer.callback_metrics["compress/reached"])
    assert logged == pytest.approx(0.5, abs=1 / total(foreign))


@pytest.mark.parametrize(
    ("callback", "error", "message"),
    [
        (lambda: MagnitudePruning(1.0), InvalidArgumentError, r"target must be in \[0, 1\)"),
        (lambda: MagnitudePruning(-0.1), InvalidArgumentError, "got -0.1"),
        (lambda: MagnitudePruning(float("nan")), InvalidArgumentError, "got nan"),
        (lambda: MagnitudePruning(0.5, scope="layer"), InvalidArgumentError, "global, local"),
        (lambda: MagnitudePruning(0.5, include="net.*"), InvalidArgumentError, "must be a list"),
        (lambda: MagnitudePruning(0.5, Schedule(0, 9)), ScheduleError, "schedule.last is 9"),
        (lambda: MagnitudePruning(0.5, include=["nte.*"]), PatternError, "'nte.*'"),
    ],
)
def test_bad_arguments_are_refused_before_training(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], callback: Any, error: type,
    message: str,
) -> None:  # fmt: skip
    before = copy.deepcopy(foreign.state_dict())
    with pytest.raises(error, match=message):
        make_trainer(callbacks=[callback()]).fit(foreign, loader())
    assert all(torch.equal(value, before[name]) for name, value in foreign.state_dict().items())


def test_averaging_is_refused_by_name(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    trainer = make_trainer(callbacks=[MagnitudePruning(0.5), WeightAveraging()])
    with pytest.raises(InvalidArgumentError, match="cannot run together with WeightAveraging"):
        trainer.fit(foreign, loader())


def test_diverged_weights_are_refused_by_name(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    with torch.no_grad():
        foreign.net[3].weight[0] = float("nan")
    with pytest.raises(PatternError, match=r"net\.3\.weight holds NaN"):
        make_trainer(callbacks=[MagnitudePruning(0.5, ONCE)]).fit(foreign, loader())


def test_the_cost_is_said_before_the_training(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    """Only callbacks that remove channels said what a pruning step takes."""
    pruner = MagnitudePruning(0.5, schedule=Schedule(0, 1))
    with caplog.at_level("INFO"):
        make_trainer(max_epochs=3, callbacks=[pruner]).fit(foreign, loader())
    assert re.search(
        r"a pruning step takes about \d+\.\d s; steps: 2; keeping weights at zero takes at most "
        r"about \d+\.\d s of each epoch$",
        caplog.text,
        re.MULTILINE,
    )
