import pytest
import torch
from torch import Tensor, nn

from lit_compress.quantization import Calibrated
from lit_compress.quantization.layer_noise import measure
from lit_compress.quantization.layer_noise.errors import Errors, NotDifferentiableError
from lit_compress.quantization.observers import fake_quantize

from .networks import by_noise, by_runs, images


class Net(nn.Module):
    """A linear network with an operation on its last layer's outputs.

    Args:
        last: The operation.
    """

    def __init__(self, last: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = last
        self.first, self.second = nn.Linear(192, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.first(x.flatten(1)).relu())
        if self.last == "classes":
            return hidden.argmax(1)
        if self.last == "round":
            return hidden.round()
        if self.last == "sign":
            return hidden * (hidden > 0)
        return hidden + torch.zeros_like(hidden)


@pytest.mark.parametrize("last", ["classes", "round", "sign"])
def test_without_gradients_each_layer_is_run(last: str) -> None:
    inputs = images()
    calibrated = Calibrated(Net(last).eval(), [inputs], inputs)
    with pytest.raises(NotDifferentiableError):
        measure.noise_by_gradients(calibrated._prepared, {}, (inputs,), lambda items, _: items)
    assert by_noise(calibrated, inputs) == by_runs(calibrated, inputs)


def test_a_constant_of_the_same_shape_has_no_gradient_and_needs_none() -> None:
    inputs = images()
    calibrated = Calibrated(Net("none").eval(), [inputs], inputs)
    Errors(calibrated._prepared).run(inputs)


def test_the_errors_are_those_of_the_observers() -> None:
    inputs = images()
    prepared = Calibrated(Net("none").eval(), [inputs], inputs)._prepared
    errors = Errors(prepared)
    outputs = errors.run(inputs)
    assert torch.allclose(outputs, prepared(inputs), atol=1e-6)
    assert len(errors.errors) == len(errors.points) == len(errors.observers) == 5
    found = {str(n.args[0]): one for n, one in zip(errors.observers, errors.errors, strict=True)}
    pixels = next(n for n in errors.observers if str(n.args[0]) == "flatten")
    module = prepared.get_submodule(str(pixels.target))
    flat = inputs.flatten(1)
    assert torch.equal(found["flatten"], fake_quantize(module, flat) - flat)
    assert found["second_weight"].shape == (32, 4)
    assert errors.rows == 32
