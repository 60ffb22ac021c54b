"""Layers that keep their channels, or stay in float."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from doctor.faults import Net, diagnosed, healthy
from lit_compress.doctor.layers import if_settled
from lit_compress.errors import ChannelError


class Fixed(nn.Module):
    """Has the number of channels in its code."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part * 2 for part in x.split((3, 5), 1)], 1)


def test_what_keeps_its_channels_is_named_with_the_reason(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.module, case.callbacks = Net(Fixed()), []
    found = {one.question: one for one in diagnosed(case).findings}["channels"]
    assert found.verdict == "fine"
    assert "body.3 " in found.found
    assert "split" in found.found
    assert "head.2 is an output of the network" in found.found


def test_a_network_that_prunes_almost_nothing_is_warned_of(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.module = Net(Fixed())
    case.module.body[0].weight.requires_grad_(True)  # type: ignore[index,union-attr]
    found = {one.question: one for one in diagnosed(case).findings}["channels"]
    assert found.verdict == "warning"
    assert "split" in found.found


def test_values_that_overflow_mean_nothing_before_norms_are_settled() -> None:
    """MNASNet's norms move by 0.0003 a batch: after 20 steps its outputs in eval mode overflow."""

    def fails() -> None:
        raise ChannelError("an output has no finite value: check the weights")

    norm = nn.BatchNorm2d(2)
    assert "have seen too few batches" in if_settled(nn.Sequential(norm), fails).found  # type: ignore[arg-type]
    norm.num_batches_tracked.fill_(100)  # type: ignore[union-attr]
    with pytest.raises(ChannelError):
        if_settled(nn.Sequential(norm), fails)  # type: ignore[arg-type]
