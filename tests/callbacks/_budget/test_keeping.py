"""Pruning keeps the metric that was asked for: steps wait, and the last network that held stays."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lit_compress import Schedule, load, restore
from lit_compress.artifact import read_card
from lit_compress.callbacks import (
    CompressionReport,
    FilterPruning,
    MagnitudePruning,
    PostTrainingQuantization,
    QuantizationAwareTraining,
    RulePruning,
)
from lit_compress.errors import InvalidArgumentError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*the run goes back:UserWarning",
    "ignore:.*the target gave way:UserWarning",
    "ignore:Checkpoint directory:UserWarning",
    "ignore:.*the run ended before:UserWarning",
)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> ForeignModule:
    torch.manual_seed(0)
    module = ForeignModule()
    trainer = Trainer(
        accelerator="cpu", max_epochs=8, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path_factory.mktemp("dense"),
    )  # fmt: skip
    trainer.fit(module, loader(256), loader(200, 1))
    module.lr = 0.005
    return module


def accuracy(module: LightningModule) -> float:
    inputs, labels = stripes(200, 1).tensors
    with torch.no_grad():
        hits = module.eval()(inputs).argmax(1) == labels
    return float(hits.float().mean())


def fit(make_trainer: Any, module: LightningModule, *callbacks: Callback, **options: Any) -> Any:
    more = {name: options.pop(name) for name in ("ckpt_path",) if name in options}
    options["enable_checkpointing"] = any(isinstance(c, ModelCheckpoint) for c in callbacks)
    trainer = make_trainer(callbacks=list(callbacks), **{"max_epochs": 8, **options})
    trainer.fit(module, loader(128), loader(200, 1), **more)
    return trainer


def pruners(tmp_path: Path, **common: Any) -> list[Any]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "- {pattern: net.0.weight, granularity: element, ratio: 0.99}\n"
        "- {pattern: net.3.weight, ratio: 0.9}\n"
    )
    schedule = {"schedule": Schedule(0, 4, shape="linear")}
    return [
        MagnitudePruning(0.98, **schedule, **common),
        FilterPruning(0.85, **schedule, **common),
        FilterPruning(0.85, shrink="end", **schedule, **common),
        RulePruning(str(rules), **schedule, **common),
    ]


@pytest.mark.parametrize("which", range(4), ids=["elements", "filters", "end", "rules"])
def test_the_network_at_the_end_keeps_the_metric(
    dense: ForeignModule, make_trainer: Any, tmp_path: Path, which: int
) -> None:
    """A target that costs everything: the run stops where the metric would break."""
    before = accuracy(dense)
    assert before > 0.9
    module = copy.deepcopy(dense)
    pruner = pruners(tmp_path, monitor="my_acc", max_drop=0.03)[which]
    fit(make_trainer, module, pruner)
    assert accuracy(module) >= before - 0.03 - 1e-6
    assert pruner.reached < pruner.goal - 0.01
    assert pruner.progress()["baseline"] == pytest.approx(before)
    plain = copy.deepcopy(dense)
    fit(make_trainer, plain, pruners(tmp_path)[which])
    assert accuracy(plain) < before - 0.03  # without it the metric breaks
    zeros = sum(int((p == 0).sum()) for p in module.parameters() if p.dim() > 1)
    left = sum(p.numel() for p in module.parameters() if p.dim() > 1)
    if which == 0:
        assert zeros / left == pytest.approx(pruner.reached, abs=0.01)
    assert module.net[3].out_channels == module.net[3].weight.shape[0]


def test_what_costs_nothing_is_pruned_to_its_target(
    dense: ForeignModule, make_trainer: Any
) -> None:
    module = copy.deepcopy(dense)
    pruner = FilterPruning(
        0.2, of="parameters", schedule=Schedule(1, 3), monitor="my_acc", max_drop=0.1
    )
    fit(make_trainer, module, pruner)
    assert pruner.reached >= 0.2
    assert [int(step["epoch"]) for step in pruner.history] == [1, 2, 3]


class Harm(Callback):
    """Breaks the network after an epoch, and mends it after a later one."""

    def __init__(self, at: int, until: int) -> None:
        self.at, self.until, self.kept = at, until, {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.current_epoch == self.at:
            self.bias = pl_module.net[7].bias.detach().clone()
        if self.at <= trainer.current_epoch < self.until:
            with torch.no_grad():
                pl_module.net[7].bias[0] = 1e3
        if trainer.current_epoch == self.until:
            with torch.no_grad():
                pl_module.net[7].bias.copy_(self.bias)


def test_a_step_waits_until_the_metric_is_back(dense: ForeignModule, make_trainer: Any) -> None:
    module = copy.deepcopy(dense)
    pruner = MagnitudePruning(
        0.3, schedule=Schedule(0, 2, shape="linear"), monitor="my_acc", max_drop=0.05
    )
    fit(make_trainer, module, pruner, Harm(at=0, until=3))
    epochs = [int(step["epoch"]) for step in pruner.history]
    assert epochs[0] == 0
    assert epochs[1] >= 4  # the metric was broken until epoch 3
    assert epochs[2] == epochs[1] + 1
    assert [step["reached"] for step in pruner.history] == pytest.approx([0.1, 0.2, 0.3], abs=0.01)


def test_without_a_network_that_held_it_is_the_dense_one(
    dense: ForeignModule, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    module = copy.deepcopy(dense)
    pruner = FilterPruning(
        0.9, of="parameters", schedule=Schedule(shape="one_shot"), monitor="my_loss", max_drop=0.0
    )
    with pytest.warns(UserWarning, match="before it was pruned"):
        fit(make_trainer, module, pruner, max_epochs=2)
    assert pruner.reached == 0
    for name, tensor in dense.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name]), name
    assert module.net[0].out_channels == 8


def test_a_resumed_run_ends_in_the_same_network(
    dense: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    found = []
    for stop in (None, 3):
        module = copy.deepcopy(dense)
        keep = ModelCheckpoint(tmp_path / str(stop), save_last=True)
        pruner = pruners(tmp_path, monitor="my_acc", max_drop=0.03)[1]
        if stop:
            fit(make_trainer, copy.deepcopy(dense), pruner, keep, _Stop(stop))
            pruner = pruners(tmp_path, monitor="my_acc", max_drop=0.03)[1]
            keep = ModelCheckpoint(tmp_path / str(stop), save_last=True)
            last = str(tmp_path / str(stop) / "last.ckpt")
            fit(make_trainer, module, pruner, keep, ckpt_path=last)
        else:
            fit(make_trainer, module, pruner, keep)
        found.append((module.state_dict(), pruner.history))
    assert found[0][1] == found[1][1]
    for name, tensor in found[0][0].items():
        assert torch.equal(tensor, found[1][0][name]), name


class _Stop(Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


@pytest.mark.parametrize("aware", [False, True])
def test_the_sum_is_kept_by_the_file(
    dense: ForeignModule, make_trainer: Any, tmp_path: Path, aware: bool
) -> None:
    module, before = copy.deepcopy(dense), accuracy(dense)
    pruner = FilterPruning(
        0.6, of="parameters", schedule=Schedule(0, 3), monitor="my_acc", max_drop=0.03
    )
    kind: Any = QuantizationAwareTraining if aware else PostTrainingQuantization
    quantizer = kind(monitor="my_acc", max_drop=0.01, dirpath=str(tmp_path / "a"))
    fit(make_trainer, module, pruner, quantizer)
    card = read_card(tmp_path / "a")
    int8 = next(v for v in card.variants if v.name == "int8")
    assert int8.metric is not None
    assert int8.metric.value >= before - 0.04 - 1e-6
    assert card.pruning[0]["max_drop"] == 0.03


def test_a_step_back_before_fake_quantisation_is_quantised_after_it(
    dense: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    """The ranges of the network that is left behind are not those of the one that stays."""
    module = copy.deepcopy(dense)
    pruner = FilterPruning(
        0.9, of="parameters", schedule=Schedule(0, 3, shape="linear"), monitor="my_acc",
        max_drop=0.02,
    )  # fmt: skip
    quantizer = QuantizationAwareTraining(first=6, dirpath=str(tmp_path / "a"))
    fit(make_trainer, module, pruner, quantizer, Harm(at=5, until=99))
    card = read_card(tmp_path / "a")
    assert card.config["PostTrainingQuantization"]["trained"] is False
    assert accuracy(module) >= accuracy(dense) - 0.02 - 1e-6


def test_the_baseline_of_the_report_counts(
    dense: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    """The network that begins is worse than the one it is compared with."""
    torch.save({"state_dict": dense.state_dict()}, tmp_path / "dense.ckpt")
    module = copy.deepcopy(dense)
    nn.init.normal_(module.net[7].weight, std=0.01)
    pruner = MagnitudePruning(0.2, schedule=Schedule(0, 1), monitor="my_acc", max_drop=0.02)
    report = CompressionReport(baseline=str(tmp_path / "dense.ckpt"), dirpath=str(tmp_path / "a"))
    fit(make_trainer, module, pruner, report, max_epochs=3)
    assert pruner.contract.baseline == pytest.approx(accuracy(dense))


@pytest.mark.parametrize(
    "arguments", [{"max_drop": 0.1}, {"max_drop": -1, "monitor": "my_acc"},
                  {"max_drop": float("nan"), "monitor": "my_acc"}, {"mode": "most"}]
)  # fmt: skip
def test_arguments_out_of_their_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        FilterPruning(0.5, **arguments)


def test_the_report_of_a_run_that_went_back_to_the_dense_network(
    dense: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    """The card had a network called pruned, and the report looked for one called dense."""
    torch.save({"state_dict": dense.state_dict()}, tmp_path / "dense.ckpt")
    for baseline in (None, str(tmp_path / "dense.ckpt")):
        module = copy.deepcopy(dense)
        pruner = FilterPruning(
            0.9, of="parameters", schedule=Schedule(shape="one_shot"), monitor="my_loss",
            max_drop=0.0,
        )  # fmt: skip
        folder = tmp_path / f"a{baseline is None}"
        writer = PostTrainingQuantization(dirpath=str(folder))
        fit(make_trainer, module, pruner, writer, CompressionReport(baseline=baseline),
            max_epochs=2)  # fmt: skip
        names = [variant.name for variant in read_card(folder).variants]
        assert names == [*(["baseline"] if baseline else []), "dense", "dense onnx", "int8"]
        report = restore(str(folder), ForeignModule)
        assert report.net[0].out_channels == 8


class Sometimes(ForeignModule):
    """Logs its metric in every third epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self.trainer.sanity_checking or self.current_epoch % 3 == 0:
            super().validation_step(batch, batch_idx)


def test_a_metric_that_was_not_logged_is_not_measured(
    dense: ForeignModule, make_trainer: Any
) -> None:
    """Lightning keeps the value of an earlier epoch, by which a broken network held."""
    module = Sometimes()
    module.load_state_dict(dense.state_dict())
    module.lr = 0.005
    pruner = MagnitudePruning(
        0.98, schedule=Schedule(3, 4, shape="linear"), monitor="my_acc", max_drop=0.01
    )
    fit(make_trainer, module, pruner, max_epochs=6)
    assert accuracy(module) >= accuracy(dense) - 0.02


def test_a_baseline_that_is_not_a_number_is_refused(make_trainer: Any) -> None:
    class Bad(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("my_acc", torch.tensor(float("nan")))

    pruner = FilterPruning(0.3, monitor="my_acc", max_drop=0.1, schedule=Schedule(0, 0))
    with pytest.raises(InvalidArgumentError, match="dense network is nan"):
        fit(make_trainer, Bad(), pruner)


def test_two_limits_are_refused_and_two_pruners_go_back_together(
    dense: ForeignModule, make_trainer: Any
) -> None:
    limit: dict[str, Any] = {"monitor": "my_acc", "max_drop": 0.01}
    with pytest.raises(InvalidArgumentError, match="two pruning callbacks have max_drop"):
        fit(
            make_trainer,
            copy.deepcopy(dense),
            MagnitudePruning(0.3, include=["net.3"], **limit),
            MagnitudePruning(0.3, include=["net.0"], **limit),
        )
    module = copy.deepcopy(dense)
    pruners = [
        MagnitudePruning(0.9, schedule=Schedule(0, 4, shape="linear"), include=["net.0"]),
        MagnitudePruning(0.95, schedule=Schedule(0, 4, shape="linear"), exclude=["net.0"], **limit),
    ]
    fit(make_trainer, module, *pruners, Harm(at=3, until=99))
    assert accuracy(module) >= accuracy(dense) - 0.01 - 1e-6
    for pruner in pruners:
        for name, mask in pruner.masks.items():
            weight = module.get_parameter(name).detach()
            assert torch.equal(weight[~mask], torch.zeros(int((~mask).sum())))
    assert pruners[0].reached < 0.9  # it went back too


def test_fake_quantisation_goes_back_with_the_network(
    dense: ForeignModule, make_trainer: Any, tmp_path: Path
) -> None:
    """`fake_quantized` computed with the ranges of the network that was left behind."""
    module = copy.deepcopy(dense)
    pruner = MagnitudePruning(0.3, schedule=Schedule(0, 1), monitor="my_acc", max_drop=0.05)
    quantizer = QuantizationAwareTraining(first=3, freeze=7, dirpath=str(tmp_path / "a"))
    fit(make_trainer, module, pruner, quantizer, Harm(at=7, until=99))
    inputs = stripes(500, 3).tensors[0]
    with torch.no_grad(), quantizer.fake_quantized(module.eval()):
        expected = module(inputs).argmax(1).numpy()
    assert (load(tmp_path / "a")(inputs.numpy()).argmax(1) == expected).mean() >= 0.995
