from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_compress.quantization import Calibrated
from lit_compress.quantization.layer_noise import gradients
from lit_compress.quantization.layer_noise.errors import Errors

from .networks import by_noise, by_runs, chain, images


class Windows(nn.Module):
    """Parts of each image in the batch, as Swin has them: in front of the images, and behind."""

    def __init__(self, images_first: bool) -> None:
        super().__init__()
        self.images_first = images_first
        self.stem, self.first, self.second = nn.Conv2d(3, 6, 3), nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.stem(x).flatten(2).transpose(1, 2)
        if not self.images_first:
            parts = parts.transpose(0, 1)
        moved = self.second(self.first(parts.reshape(-1, 6)).relu()).relu()
        back = moved.reshape(parts.shape)
        return self.head((back if self.images_first else back.transpose(0, 1)).mean(1))


class Mixed(nn.Module):
    """The images between the columns and the channels of one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.scale, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.stem(x).permute(2, 0, 3, 1)
        moved = self.scale(parts.reshape(-1, 6)).relu().reshape(parts.shape)
        return self.head(moved.mean((0, 2)))


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = chain(1)[:3], nn.Linear(216, 2), nn.Linear(216, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x).flatten(1)
        return self.left(hidden), self.right(hidden).tanh() * 100


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "chain": lambda: chain(4),
    "images in front": lambda: Windows(images_first=True),
    "images behind": lambda: Windows(images_first=False),
    "images between": Mixed,
    "two outputs": TwoOutputs,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_near_to_a_run_for_each_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each figure has a standard error of 0.3 dB here, and ranks a layer by its noise."""
    monkeypatch.setattr(gradients, "SAMPLES", 512)
    torch.manual_seed(0)
    inputs = images()
    calibrated = Calibrated(NETWORKS[name]().eval(), [inputs], inputs)
    expected, found = by_runs(calibrated, inputs), by_noise(calibrated, inputs)
    assert found.keys() == expected.keys()
    differences = np.array([found[source] - expected[source] for source in expected])
    assert np.abs(differences).max() < 2
    assert np.median(np.abs(differences)) < 0.7


def test_where_the_images_are() -> None:
    value = torch.zeros(6, 4)
    value[:2] = 1
    assert gradients._place(value, 3) == (0, False)
    value = torch.zeros(6, 4)
    value[[0, 3]] = 1
    assert gradients._place(value, 3) == (0, True)
    value = torch.zeros(2, 3)
    value[:, 0] = 1
    assert gradients._place(value, 3) == (1, False)
    value = torch.zeros(12)
    value[[0, 1, 6, 7]] = 1
    assert gradients._place(value, 3) is None


def test_the_number_of_operations_grows_with_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer was measured by a run of the rest: 48,638 operations for 80 layers."""
    operations = []
    run_node = Errors.run_node

    def counted(self: Errors, node: torch.fx.Node) -> object:
        operations[-1] += 1
        return run_node(self, node)

    monkeypatch.setattr(Errors, "run_node", counted)
    for layers in (2, 4, 8):
        inputs = images()[:4]
        calibrated = Calibrated(chain(layers), [inputs], inputs)
        operations.append(0)
        calibrated.noise(inputs)
    assert operations[2] - operations[1] == 2 * (operations[1] - operations[0])


def test_few_values_are_kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    run = Errors.run

    def watched(self: Errors, *inputs: Tensor) -> object:
        batches.append(len(inputs[0]))
        return run(self, *inputs)

    inputs = images()
    calibrated = Calibrated(chain(1), [inputs], inputs)
    whole = by_noise(calibrated, inputs)
    monkeypatch.setattr(Errors, "run", watched)
    monkeypatch.setattr(gradients, "KEPT", 0)
    monkeypatch.setattr(gradients, "SAMPLES", 32)
    parts = by_noise(calibrated, inputs)
    assert batches == [3, *[1] * 32]
    assert parts.keys() == whole.keys()
    assert max(abs(parts[source] - whole[source]) for source in whole) < 4


def test_it_is_the_same_each_time_and_moves_no_random_state() -> None:
    inputs = images()
    calibrated = Calibrated(chain(1), [inputs], inputs)
    state = torch.get_rng_state()
    with torch.inference_mode():
        first = calibrated.noise(inputs)
    assert calibrated.noise(inputs) == first
    assert torch.equal(torch.get_rng_state(), state)
