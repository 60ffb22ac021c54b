import copy

import pytest
import torch
from torch import Tensor, nn

from lit_compress.artifact import sqnr_db
from lit_compress.errors import CalibrationError, ExportError
from lit_compress.quantization import WithPreprocessing, quantize


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    ).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("calibration", ["histogram", "minmax"])
def test_outputs_stay_close_for_any_batch(images: Tensor, calibration: str) -> None:
    net = network()
    graph = quantize(net, [images], images, calibration)  # type: ignore[arg-type]
    with torch.no_grad():
        for size in (1, 5, 32):
            batch = images[:size]
            assert sqnr_db(net(batch).numpy(), graph(batch).numpy()) > 25


def test_the_network_is_not_touched(images: Tensor) -> None:
    net = network().train()
    before = copy.deepcopy(net.state_dict())
    quantize(net, [images], images)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_float_weights_are_dropped(images: Tensor) -> None:
    graph = quantize(network(), [images], images)
    kept = [t for t in (*graph.parameters(), *graph.buffers()) if t.numel() == 8 * 36 * 4]
    assert [tensor.dtype for tensor in kept] == [torch.int8]


def test_weights_that_are_not_finite_are_named(images: Tensor) -> None:
    net = network()
    with torch.no_grad():
        net[4].weight[0, 0] = float("inf")
    with pytest.raises(CalibrationError, match=r"4\.weight holds NaN or infinity"):
        quantize(net, [images], images)


def test_a_forward_that_depends_on_values_names_its_line(images: Tensor) -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(ExportError, match=r"forward of Gate cannot be exported: `if x.sum\(\) > 0"):
        quantize(Gate(), [images], images)


def test_embedded_is_preprocessing_then_network(images: Tensor) -> None:
    halve = nn.Module()
    halve.forward = lambda x: x.float() / 2
    pixels = torch.randint(0, 255, (4, 1, 8, 8), dtype=torch.uint8)
    net = network()
    assert torch.equal(WithPreprocessing(halve, net)(pixels), net(pixels.float() / 2))
