"""The loss of one call: weights, several outputs, and features."""

from __future__ import annotations

import pytest
import torch

from lit_compress.callbacks._distillation.calls import NetworkCall
from lit_compress.callbacks._distillation.loss import CallLoss
from lit_compress.distillation import feature_loss, soft_loss
from lit_compress.errors import InvalidArgumentError

SCORES, OTHER = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
BATCH = [torch.zeros(4, 5), torch.tensor([0, 2, 1, 0])]


def test_outputs_and_features_are_weighted() -> None:
    loss = CallLoss(2.0, 0.5, "auto", ("layer",), 3.0)
    call = NetworkCall("", (BATCH[0],), {}, SCORES, {"layer": SCORES[:, :2]})
    kept = torch.tensor([0, 2])
    found = loss.of(call, (OTHER, {"layer": OTHER}), BATCH, lambda _: kept)
    expected = 0.5 * soft_loss(SCORES, OTHER, 2.0)
    expected = expected + 3 * feature_loss(SCORES[:, :2], OTHER, kept)
    torch.testing.assert_close(found, expected)
    assert loss.kinds == [("classes", 1)]


def test_other_shapes_are_refused() -> None:
    loss = CallLoss(2.0, 0.5, "auto", (), 1.0)
    with pytest.raises(InvalidArgumentError, match="teacher returns 4 x 2, and the network 4 x 3"):
        loss.of(NetworkCall("", (), {}, SCORES), (OTHER[:, :2], {}), BATCH, lambda _: None)
