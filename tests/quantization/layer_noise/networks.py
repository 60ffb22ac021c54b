"""Small calibrated networks, and their noise by a run for each layer."""

import torch
from torch import Tensor, nn

from lit_compress.quantization import Calibrated
from lit_compress.quantization.calibrate import untracked
from lit_compress.quantization.layer_noise.runs import noise_by_runs
from lit_compress.quantization.layer_noise.sources import Source, find_sources


def images() -> Tensor:
    return torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def chain(layers: int) -> nn.Sequential:
    torch.manual_seed(0)
    body = [part for _ in range(layers) for part in (nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 6, 3), *body, nn.Flatten(), nn.Linear(216, 3)).eval()


def by_runs(calibrated: Calibrated, inputs: Tensor) -> dict[Source, float]:
    sources = find_sources(calibrated._prepared, calibrated._quantizer.owners)
    return noise_by_runs(calibrated._prepared, sources, (inputs,), untracked)


def by_noise(calibrated: Calibrated, inputs: Tensor) -> dict[Source, float]:
    rows = calibrated.noise(inputs)
    found = {(row.name, "weight"): row.weight_db for row in rows}
    found |= {(row.name, "activation"): row.activation_db for row in rows}
    return {source: value for source, value in found.items() if value is not None}
