"""Questions about a tensor are no calls: they have no number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_compress.pruning.channels.operations import HANDLERS, own, unknown
from lit_compress.pruning.channels.tracing.questions import INERT
from lit_compress.pruning.channels.tracing.trace import Trace


def test_a_run_with_further_questions_makes_the_same_calls() -> None:
    """An LSTM asks more of weights that it has not seen, so all later calls had other numbers."""

    class Asking(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            _ = x.shape, x.dtype, x.dim(), x.is_contiguous(), len(x)
            return super().forward(x).relu()

    names, x = [], torch.ones(4, 3)
    for layer in (Asking(3, 2), nn.Sequential(nn.Linear(3, 2), nn.ReLU())):
        trace = Trace(layer, HANDLERS, unknown, {}, own)
        with trace.watching():
            layer(x)
        names.append(trace.recording.names)
    assert names == [["linear", "relu"]] * 2
    assert {"get shape", "dim", "len"} <= INERT
