import gc
import logging
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from lit_compress.quantization import pt2e
from lit_compress.quantization.convert import Calibrated


def calibrated() -> Calibrated:
    """A network whose first norm follows no convolution."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    )
    images = torch.rand(4, 3, 8, 8)
    return Calibrated(network, [images], images)


def test_everything_it_offers_is_there() -> None:
    assert all(callable(getattr(pt2e, name)) for name in pt2e.__all__)


def test_the_import_says_nothing_and_leaves_the_logger_as_it_was() -> None:
    """torchao registers an Enum, which torch reports to the log at each import."""
    words = [sys.executable, "-c", "import lit_compress.quantization.pt2e"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "deprecated" not in done.stderr
    assert logging.getLogger("torch.utils._pytree").level == logging.NOTSET


def living() -> tuple[int, int]:
    """The tensors that hold numbers, and the graphs, that are not freed."""
    gc.collect()
    found = [type(thing) for thing in gc.get_objects()]
    graphs = sum(issubclass(one, GraphModule) for one in found)
    return sum(one in (Tensor, nn.Parameter) for one in found), graphs


def test_ten_conversions_leave_nothing_in_memory() -> None:
    """Two caches, of torchao and of torch, kept each graph for good: 1.25 networks a fit."""
    calibrated().convert()
    before = living()
    one = calibrated()
    for _ in range(8):
        one.convert()
    calibrated().convert()
    del one
    assert living() == before


def test_a_failed_preparation_leaves_nothing_in_memory() -> None:
    one = calibrated()
    before = living()
    with (
        patch.object(one._quantizer, "validate", side_effect=ValueError("stop")),
        pytest.raises(ValueError, match="stop"),
    ):
        one.convert()
    assert living() == before


def test_it_converts_as_torchao_does_and_looks_for_no_training_patterns() -> None:
    """The search traced each pattern anew, 16 s for a network with one lone norm."""
    from torchao.quantization.pt2e import quantize_pt2e

    one, images = calibrated(), torch.rand(5, 3, 8, 8)
    search = "_fold_conv_bn_qat"
    with patch.object(quantize_pt2e, search, side_effect=lambda graph: graph) as searched:
        theirs = quantize_pt2e.convert_pt2e(one._prepare())
        assert searched.call_count == 1
        ours = pt2e.convert(one._prepare())
        assert searched.call_count == 1
    assert [n.target for n in ours.graph.nodes] == [n.target for n in theirs.graph.nodes]
    assert torch.equal(ours(images), theirs(images))
