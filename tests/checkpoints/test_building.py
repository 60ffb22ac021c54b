from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lit_compress.checkpoints.building import Bounded, unchanged_on_error
from lit_compress.checkpoints.weights import load_weights
from lit_compress.errors import CheckpointError
from lit_compress.modules import ShuffleNetV2


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(1 << 20, 1 << 20),
        lambda: torch.zeros(1 << 40),
        lambda: torch.ones((1 << 20, 1 << 20)),
        lambda: torch.empty(size=(1 << 40,)),
    ],
)
def test_a_tensor_far_larger_than_those_of_the_file_is_refused(make: object) -> None:
    with pytest.raises(CheckpointError, match="elements"), Bounded([100]):
        make()  # type: ignore[operator]


def test_usual_modules_are_built() -> None:
    with Bounded([1]):
        module = ShuffleNetV2(width=0.5)
    assert sum(tensor.numel() for tensor in module.parameters()) > 100_000


def test_a_module_is_as_it_was_after_an_error() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    first = module[0].weight

    def spoil() -> None:
        module[0].weight.data = torch.zeros(1, 2)
        module[0].out_features = 1
        module[1].running_mean = torch.full((1,), 7.0)
        module.extra = 3
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"), unchanged_on_error(module):
        spoil()
    assert module[0].weight is first
    assert module[0].out_features == 3
    assert not hasattr(module, "extra")
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def classifier() -> ShuffleNetV2:
    return ShuffleNetV2(width=0.5, in_channels=1, stem="cifar")


def test_refused_weights_leave_the_module_as_it_was(tmp_path: Path) -> None:
    """A tensor without values failed half-way: the tensors before it were loaded."""
    module, other = classifier(), classifier()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = other.state_dict()
    state["model.fc.weight"] = torch.zeros_like(state["model.fc.weight"], device="meta")
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"no values for model\.fc\.weight"):
        load_weights(module, tmp_path / "x.ckpt")
    after = module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_weights_that_are_nan_are_refused(tmp_path: Path) -> None:
    """A training went on from NaN, and only its loss said so."""
    state = {name: tensor.clone() for name, tensor in classifier().state_dict().items()}
    state["model.fc.bias"][2] = float("nan")
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.fc\.bias of .* holds NaN"):
        load_weights(classifier(), tmp_path / "x.safetensors")
