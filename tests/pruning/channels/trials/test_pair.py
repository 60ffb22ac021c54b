"""Both networks of a trial."""

from __future__ import annotations

import torch
from torch import nn

from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.trials.pair import _perturbed


def test_vectors_and_constants_are_perturbed_and_weights_are_not() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 2, bias=False))
    nn.init.zeros_(model[2].weight)
    model.register_parameter("gain", nn.Parameter(torch.zeros(())))
    perturbed = _perturbed(named_tensors(model))
    assert set(perturbed) == {"0.bias", "1.weight", "1.bias", "2.weight", "gain"}
    assert all(value.ne(0).all() for value in perturbed.values())
