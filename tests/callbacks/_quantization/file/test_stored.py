"""Stored inputs have at most the bytes of the network, and are as many as fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ForeignModule
from torch import nn

from lit_compress.artifact.replay import read_replay, stored_count, write_replay
from lit_compress.callbacks._quantization.file.float_outputs import FloatOutputs
from lit_compress.callbacks._quantization.file.stored import Stored, stored_inputs


class Scale(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() / 255


def stored(batch: torch.Tensor, size: int, pixels: bool = False) -> tuple[Stored, nn.Module]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(10))
    scale = Scale() if pixels else None
    expected = FloatOutputs([scale(batch) if scale else batch], ForeignModule(), net)
    return stored_inputs([batch], expected, scale, size), net


def written(found: Stored, path: Path) -> int:
    write_replay(path, [one.numpy() for one in found.inputs], found.outputs)
    return path.stat().st_size


@pytest.mark.parametrize("size", [10_000, 50_000, 10_000_000])
def test_as_many_as_fit(size: int, tmp_path: Path) -> None:
    batch = torch.randn(64, 3, 16, 16)
    found, net = stored(batch, size)
    assert found.count == stored_count(4 * (3 * 16 * 16 + 10), size)
    assert torch.equal(found.inputs[0], batch[: found.count])
    torch.testing.assert_close(torch.from_numpy(found.outputs[0]), net(batch[: found.count]))
    assert written(found, tmp_path / "r.npz") <= size
    assert (found.block, found.note) == (1, None)


@pytest.mark.parametrize("side", [64, 224, 512])
@pytest.mark.parametrize("pixels", [False, True])
def test_one_that_is_larger_than_the_network(side: int, pixels: bool, tmp_path: Path) -> None:
    """An image of 224 pixels took 602 kB beside a network of 20 kB."""
    batch = torch.rand(2, 3, side, side) * 255
    batch = batch.to(torch.uint8) if pixels else batch
    size = 5_000
    found, net = stored(batch, size, pixels)
    assert written(found, tmp_path / "r.npz") <= size
    assert found.count == 1
    block = found.block
    assert block > 1
    assert f"blocks of {block} equal numbers" in str(found.note)
    (inputs,), (outputs,) = read_replay(tmp_path / "r.npz")
    places = np.arange(side) // block * block
    np.testing.assert_array_equal(inputs, batch[:1].numpy()[:, :, places][:, :, :, places])
    given = torch.from_numpy(inputs)
    given = given.float() / 255 if pixels else given
    torch.testing.assert_close(torch.from_numpy(outputs), net(given))


def test_rows_of_features_and_whole_numbers(tmp_path: Path) -> None:
    words = torch.randint(0, 30_000, (4, 4096))
    expected = FloatOutputs([words], ForeignModule(), nn.Identity())
    found = stored_inputs([words], expected, None, 3_000)
    assert written(found, tmp_path / "r.npz") <= 3_000
    assert set(found.inputs[0].flatten().tolist()) <= set(words[0].tolist())
