"""Rounding as the file does it, and the gradients that pass through."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_compress.quantization.observers import weight_observer
from lit_compress.quantization.training.rounding import round_activation, round_weight

scales = st.floats(1e-4, 10.0)


@settings(max_examples=50, deadline=None)
@given(scales, st.integers(0, 255), st.integers(0, 2**16))
def test_activations_are_rounded_as_torch_rounds_them(scale: float, zero: int, seed: int) -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(seed)) * scale * 100
    found = round_activation(values, scale, zero)
    expected = torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)
    ties = ((values / scale) % 1 - 0.5).abs() < 1e-3  # torch multiplies by 1 / scale
    torch.testing.assert_close(found[~ties], expected[~ties])
    assert ((found - expected).abs() <= scale * 1.001).all()


@settings(max_examples=20, deadline=None)
@given(scales, st.integers(0, 255))
def test_rounding_twice_is_rounding_once(scale: float, zero: int) -> None:
    once = round_activation(torch.linspace(-300, 300, 999) * scale, scale, zero)
    assert torch.equal(round_activation(once, scale, zero), once)


def test_gradients_pass_inside_the_range_alone() -> None:
    values = torch.tensor([-0.6, -0.2, 1.0, 25.4, 25.6], requires_grad=True)
    round_activation(values, 0.1, 3).backward(torch.arange(1.0, 6))
    assert values.grad is not None
    assert values.grad.tolist() == [0, 2, 3, 0, 0]
    expected = torch.tensor([-0.6, -0.2, 1.0, 25.4, 25.6], requires_grad=True)
    torch.fake_quantize_per_tensor_affine(expected, 0.1, 3, 0, 255).backward(torch.arange(1.0, 6))
    assert torch.equal(values.grad, expected.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "axis"), [((6, 5), 0), ((4, 3, 2, 2), 0), ((3, 4, 2, 2), 1)])
def test_weights_are_rounded_as_the_file_does(shape: tuple[int, ...], axis: int) -> None:
    weight = torch.randn(shape, requires_grad=True)
    observer = weight_observer(axis, "full")
    observer(weight.detach())
    scale, zero = observer.calculate_qparams()  # type: ignore[operator]
    expected = torch.ops.quantized_decomposed.dequantize_per_channel(
        torch.ops.quantized_decomposed.quantize_per_channel(
            weight.detach(), scale, zero, axis, -127, 127, torch.int8
        ),
        scale,
        zero,
        axis,
        -127,
        127,
        torch.int8,
    )
    found = round_weight(weight, axis, 127)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones(shape))


def test_half_precision_stays_and_is_rounded_in_single() -> None:
    values = (torch.arange(256) * 0.1).bfloat16()
    found = round_activation(values, 0.1, 0)
    assert found.dtype == torch.bfloat16
    steps: Tensor = (values.float() / 0.1).round()
    assert torch.equal(found, (steps * 0.1).bfloat16())
