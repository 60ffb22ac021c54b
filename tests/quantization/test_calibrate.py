import pytest
import torch
from torch import fx, nn

from lit_compress.errors import CalibrationError
from lit_compress.quantization import calibrate


class Seen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> None:
        self.batches.append(x)


def test_every_batch_is_run_and_counted() -> None:
    seen, batches = Seen(), [torch.ones(3, 2), torch.zeros(2, 2)]
    assert calibrate(seen, batches) == 5
    assert all(torch.equal(a, b) for a, b in zip(seen.batches, batches, strict=True))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "calibration got no batches"),
        ([torch.ones(2, 2), torch.ones(0, 2)], "calibration batch 1 is empty"),
        ([torch.ones(2, 2), torch.tensor([[1.0, float("nan")]])], "batch 1 holds 1 values that"),
        ([torch.full((2, 2), float("inf"))], "batch 0 holds 4 values that are NaN or infinite"),
    ],
)
def test_batches_that_would_give_a_wrong_scale_are_refused(batches: list, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibrate(Seen(), batches)


class Determinant(nn.Module):
    """The sign of a determinant, and the logarithm of its size, which is infinite for zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sign, logarithm = torch.linalg.slogdet(x)
        return sign * logarithm


def test_the_layer_that_gives_infinity_in_one_of_its_results_is_named() -> None:
    """The operation behind it, which takes that result, was."""
    graph = fx.symbolic_trace(Determinant())
    names = [node.name for node in graph.graph.nodes]
    with pytest.raises(CalibrationError, match="layer volume gives NaN or infinity"):
        calibrate(graph, [torch.zeros(2, 3, 3)], {names[1]: "volume"})
