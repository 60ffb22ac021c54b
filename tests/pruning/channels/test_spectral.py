"""After a cut, a spectral norm knows the largest singular value of what is left."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as old_spectral_norm

from lit_compress.pruning.channels.spectral import settle_spectral_norms


@pytest.mark.parametrize("make", [parametrizations.spectral_norm, old_spectral_norm])
def test_the_vectors_are_estimated_again_where_they_changed(make: object) -> None:
    torch.manual_seed(0)
    layer: nn.Module = make(nn.Linear(12, 8))  # type: ignore[operator]
    model = nn.Sequential(layer).eval()
    vectors = [t for name, t in model.named_buffers() if name.endswith(("_u", "_v"))]
    for vector in vectors:
        vector.copy_(torch.ones_like(vector) * 3)
    settle_spectral_norms(model, set())
    assert all(bool((vector == 3).all()) for vector in vectors)
    settle_spectral_norms(model, {id(vectors[0])})
    model(torch.randn(2, 12))
    largest = torch.linalg.matrix_norm(layer.weight.detach(), 2).item()
    assert largest == pytest.approx(1, rel=0.02)
    assert all(vector.norm().item() == pytest.approx(1, rel=1e-4) for vector in vectors)
