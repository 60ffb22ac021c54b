import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from torch import nn

from lit_compress import Schedule
from lit_compress.callbacks import CompressionReport, FilterPruning
from lit_compress.checkpoints.saved_weights import load_saved, read_safetensors, save_weights
from lit_compress.errors import CheckpointError
from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.channels.resize import UnprunedShapes


class WithExtraState(ForeignModule):
    def get_extra_state(self) -> dict:
        return {"seen": 3}

    def set_extra_state(self, state: dict) -> None:
        raise AssertionError("extra state is not in the file")


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    """A module with extra state used to fail after the training, when its weights were saved."""
    module, other = WithExtraState(), WithExtraState()
    module.net.to(memory_format=torch.channels_last)
    save_weights(module, tmp_path / "below" / "w.safetensors")
    load_saved(other, tmp_path / "below" / "w.safetensors")
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name))
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["w.safetensors"]


class Shared(ForeignModule):
    """Tensors in one memory, which the library refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = self.net[0]
        row = torch.arange(6.0)
        self.register_buffer("left", row[:3])
        self.register_buffer("right", row[3:])
        self.register_buffer("turned", torch.arange(6.0).view(2, 3).t())


def test_tensors_in_one_memory(tmp_path: Path) -> None:
    module = Shared()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    save_weights(module, tmp_path / "w.safetensors")
    found, _ = read_safetensors(tmp_path / "w.safetensors")
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], value) for name, value in before.items())


def test_a_file_of_another_form_is_not_written(tmp_path: Path, monkeypatch: Any) -> None:
    """The header must keep its length: the tensors follow it."""
    dumps = json.dumps

    def longer(*values: Any, **options: Any) -> str:
        return dumps(*values, **options) + " " * 100 * ("separators" in options)

    monkeypatch.setattr(json, "dumps", longer)
    with pytest.raises(CheckpointError, match="install safetensors"):
        save_weights(ForeignModule(), tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


class WithoutNormTensors(ForeignModule):
    """A norm whose width only its attributes tell."""

    def __init__(self) -> None:
        super().__init__()
        self.net[1] = nn.GroupNorm(4, 8, affine=False)


def test_norms_without_tensors_follow_the_weights_both_ways(tmp_path: Path) -> None:
    module, other = WithoutNormTensors(), WithoutNormTensors()
    graph = analyse(module, torch.randn(2, 1, 8, 8))
    whole, selected = UnprunedShapes.of(graph, frozenset()), frozenset(graph.groups[0].channels[:1])
    save_weights(module, tmp_path / "whole", whole)
    apply(make_plan(graph, selected), module)
    assert module.net[1].num_groups == 3
    save_weights(module, tmp_path / "pruned", UnprunedShapes.of(graph, selected))
    load_saved(other, tmp_path / "pruned")
    assert (other.net[1].num_channels, other.net[1].num_groups) == (6, 3)
    load_saved(other, tmp_path / "whole")
    assert (other.net[1].num_channels, other.net[1].num_groups) == (8, 4)


def test_the_dense_network_of_a_report_has_its_own_norms(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """With the pruned network's number of groups it would compute something else."""
    module = WithoutNormTensors()
    report = CompressionReport(monitor="my_loss", dirpath=str(tmp_path / "artifact"))
    pruning = FilterPruning(0.4, schedule=Schedule(shape="one_shot"))
    images, labels = next(iter(loader(32, 1, 32)))
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(module(images), labels))
    make_trainer(callbacks=[report, pruning]).fit(module, loader(), loader(32, 1, 32))
    assert module.net[1].num_groups < 4
    assert abs(report.card.variant("dense").metric.value - expected) < 1e-4
