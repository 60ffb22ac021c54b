"""Ranges survive a checkpoint."""

from __future__ import annotations

import io

import torch

from lit_compress.quantization.training.ranges import Ranges


def test_a_checkpoint_gives_the_same_ranges() -> None:
    ranges = Ranges({"relu": (0.1 + 1e-9, 3), "add": (2.0**-60, 255)}, {"0.weight": torch.rand(3)})
    file = io.BytesIO()
    torch.save(ranges.state(), file)
    file.seek(0)
    found = Ranges.of_state(torch.load(file, weights_only=True))
    assert found.activations == ranges.activations
    assert torch.equal(found.factors["0.weight"], ranges.factors["0.weight"])
