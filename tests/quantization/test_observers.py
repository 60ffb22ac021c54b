import numpy as np
import pytest
import torch
from torch import nn

from lit_compress.artifact import sqnr_db
from lit_compress.quantization import quantize
from lit_compress.quantization.observers import TAIL, activation_observer, weight_observer


def seen(calibration: str, values: torch.Tensor) -> tuple[float, int]:
    observer = activation_observer(calibration)  # type: ignore[arg-type]
    observer(values)
    scale, zero_point = observer.calculate_qparams()  # type: ignore[operator]
    return float(scale), int(zero_point)


def test_minmax_takes_the_whole_range() -> None:
    scale, zero_point = seen("minmax", torch.tensor([-1.0, 0.5, 4.1]))
    assert scale == pytest.approx(5.1 / 255)
    assert zero_point == round(1 / scale)


def test_percentile_leaves_out_the_tails() -> None:
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    low, high = np.quantile(values.numpy(), [TAIL, 1 - TAIL])
    scale, zero_point = seen("percentile", values)
    assert scale == pytest.approx((high - low) / 255, rel=0.02)
    assert zero_point == pytest.approx(-low / scale, abs=3)


def test_percentile_keeps_all_bins_of_values_without_tails() -> None:
    """The upper edge of the last bin counts, which was one bin short."""
    scale, _ = seen("percentile", torch.tensor([0.0, 1.0]).repeat(1000))
    assert scale * 255 == pytest.approx(1)


def test_histogram_has_the_smaller_error() -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) ** 3

    def error(calibration: str) -> float:
        scale, zero_point = seen(calibration, values)
        kept = ((values / scale).round() + zero_point).clamp(0, 255)
        return float(((kept - zero_point) * scale - values).square().mean())

    assert error("histogram") < error("minmax")
    assert seen("histogram", values)[0] < seen("minmax", values)[0]


def test_values_of_one_sign_keep_zero() -> None:
    assert seen("minmax", torch.tensor([3.0, 5.0]))[1] == 0


@pytest.mark.parametrize(("weight_range", "largest"), [("full", 127), ("reduced", 64)])
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_have_a_scale_a_channel(weight_range: str, largest: int, axis: int) -> None:
    weight = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    observer = weight_observer(axis, weight_range)  # type: ignore[arg-type]
    observer(weight)
    scale, zero_points = observer.calculate_qparams()  # type: ignore[operator]
    expected = weight.abs().movedim(axis, 0).flatten(1).amax(1) / largest
    torch.testing.assert_close(scale, expected)
    assert not zero_points.any()


@pytest.mark.parametrize(("count", "largest"), [(4, 1), (20, 10)])
def test_percentile_leaves_out_5_of_100_000_values_at_each_end(count: int, largest: int) -> None:
    """4 values at 10 are left out; 20 are too many to be."""
    values = torch.cat([torch.linspace(0, 1, 100_000 - count), torch.full((count,), 10.0)])
    assert seen("percentile", values)[0] * 255 == pytest.approx(largest, abs=0.02)


@pytest.mark.parametrize("unit", [1e6, 1e-6])
def test_the_unit_of_the_inputs_does_not_matter(unit: float) -> None:
    """No weight scale went under 2**-16: with inputs in pascal all weights were 0 (0.0 dB)."""

    def sqnr(unit: float) -> float:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        inputs = torch.randn(64, 8) * unit
        with torch.no_grad():
            network[0].weight /= unit
            graph = quantize(network, [inputs], inputs)
            return sqnr_db(network(inputs).numpy(), graph(inputs).numpy())

    assert sqnr(1.0) > 35
    assert sqnr(unit) == pytest.approx(sqnr(1.0), abs=1)


def test_a_channel_of_zeros_has_a_scale() -> None:
    observer = weight_observer(0, "full")
    observer(torch.zeros(2, 3))
    scale = observer.calculate_qparams()[0]  # type: ignore[operator]
    assert bool(
        (scale * seen("minmax", torch.zeros(3))[0] >= torch.finfo(torch.float32).tiny).all()
    )
