import pytest
import torch
from torch import Tensor, nn

from lit_compress.artifact import sqnr_db
from lit_compress.quantization import Calibrated
from lit_compress.quantization import convert as conversion
from lit_compress.quantization.layer_noise import gradients


@pytest.fixture
def images() -> Tensor:
    return torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    ).eval()


def test_a_weight_alone_is_as_bad_as_numpy_says(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network()
    monkeypatch.setattr(gradients, "SAMPLES", 4096)
    for changes_weights, nothing in (("equalize", {}), ("round_biases", {})):
        monkeypatch.setattr(conversion, changes_weights, lambda *_, nothing=nothing: nothing)
    rows = {row.name: row for row in Calibrated(net, [images], images).noise(images)}
    assert list(rows) == ["input", "0", "4"]
    weight = net[4].weight.detach()
    scale = weight.abs().amax(1, keepdim=True) / 127
    rounded = (weight / scale).round().clamp(-127, 127) * scale
    hidden = net[:4](images).detach()
    expected = sqnr_db(
        (hidden @ weight.T + net[4].bias).detach().numpy(),
        (hidden @ rounded.T + net[4].bias).detach().numpy(),
    )
    assert rows["4"].weight_db == pytest.approx(expected, abs=0.2)
    assert rows["4"].activation_db is None
    assert rows["input"].weight_db is None


def test_the_layer_that_hurts_is_found(images: Tensor) -> None:
    net = network()
    with torch.no_grad():
        net[4].weight[:, 0] *= 3000  # one weight takes the range of all others
        net[0].weight[0] = 0
        net[1].bias[0], net[1].weight[0], net[1].running_mean[0] = -1, 0, 0
    noise = Calibrated(net, [images], images).noise(images)
    worst = min(noise, key=lambda row: row.worst_db)
    assert (worst.name, worst.fault) == ("4", "weight")
    spiky = images.clone()
    spiky[0, 0, 0, 0] = 3000
    noise = Calibrated(network(), [spiky], images, "minmax").noise(images)
    worst = min(noise, key=lambda row: row.worst_db)
    assert (worst.name, worst.fault) == ("input", "activation")
