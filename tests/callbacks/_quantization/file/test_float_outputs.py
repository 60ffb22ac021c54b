"""What a file is compared with is what the network itself returns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from conftest import ForeignModule
from torch import Tensor, nn

from lit_compress.callbacks._quantization.file.float_outputs import FloatOutputs


class Summed(nn.Module):
    """Returns twice its input, and a sum over the batch; it writes to its input."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mul_(2), x.sum()


BATCHES = [torch.arange(6.0).view(3, 2), torch.arange(4.0).view(2, 2)]


@pytest.fixture
def outputs() -> FloatOutputs:
    return FloatOutputs(BATCHES, ForeignModule(), Summed())


def test_all_outputs_are_those_of_all_inputs(outputs: FloatOutputs) -> None:
    """A number has no batch axis, so the one of the first batch counts."""
    doubled, total = outputs.all
    np.testing.assert_array_equal(doubled, 2 * torch.cat(BATCHES).numpy())
    assert total.tolist() == [30.0]
    assert (outputs.length, outputs.examples, outputs.shape) == (3, 5, (3, 2))
    assert BATCHES[0].tolist() == [[0, 1], [2, 3], [4, 5]]  # they are as they were


def test_what_has_a_batch_axis_is_computed_once() -> None:
    """All batches were run again for the inputs that are stored, and for the shape."""
    calls: list[int] = []

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return x * 2

    outputs = FloatOutputs(BATCHES, ForeignModule(), Counted())
    assert outputs.shape == (3, 2)
    (first,), (doubled,) = outputs.first(4), outputs.all
    np.testing.assert_array_equal(first, doubled[:4])
    np.testing.assert_array_equal(outputs.first(1)[0], doubled[:1])
    assert calls == [3, 2]


def test_the_first_ones_are_run_again(outputs: FloatOutputs) -> None:
    doubled, total = outputs.first(4)
    np.testing.assert_array_equal(doubled, 2 * torch.cat(BATCHES)[:4].numpy())
    assert total.tolist() == [2 * (15 + 0 + 1)]


def test_a_network_runs_as_it_was_trained() -> None:
    module = ForeignModule()

    def trained(copy: object, inputs: Sequence[Tensor]) -> Tensor:
        assert copy is module
        return inputs[0] + 1

    outputs = FloatOutputs(BATCHES, module, Summed(), trained)
    np.testing.assert_array_equal(outputs.all[0], torch.cat(BATCHES).numpy() + 1)
    assert outputs.is_fake_quantized
    assert not FloatOutputs(BATCHES, module, Summed()).is_fake_quantized
