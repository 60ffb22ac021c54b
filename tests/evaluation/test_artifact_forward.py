from typing import Any

import numpy as np
import pytest
import torch
from conftest import ForeignModule

from lit_compress.artifact import Card
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.artifact_forward import artifact_forward
from lit_compress.runtimes.interface import Input


class Constant:
    """In the place of a file: gives the same scores for every image."""

    def __init__(self, network: str, inputs: list[str], taken: str) -> None:
        config = {"PostTrainingQuantization": {"network": network, "inputs": inputs}}
        self.card = Card("run", (), {}, config)
        self.inputs = (Input(taken, (1, 8, 8), np.dtype(np.float32), True),)

    def all_outputs(self, images: np.ndarray) -> list[np.ndarray]:
        return [np.tile(np.arange(4, dtype=np.float32), (len(images), 1)) + images.mean()]


@pytest.mark.parametrize("network", ["", "net"])
def test_a_file_computes_in_the_networks_place(foreign: ForeignModule, network: str) -> None:
    images = torch.randn(3, 1, 8, 8)
    before = foreign(images)
    model: Any = Constant(network, ["input"], "input")
    with artifact_forward(foreign, model):
        torch.testing.assert_close(
            foreign(images), torch.from_numpy(*model.all_outputs(images.numpy()))
        )
    assert torch.equal(foreign(images), before)
    assert "forward" not in vars(foreign.net)


def test_inputs_that_the_file_does_not_take_are_left_out(foreign: ForeignModule) -> None:
    model: Any = Constant("", ["batch_image", "batch_label"], "batch_image")
    with artifact_forward(foreign, model):
        found = foreign({"image": torch.ones(2, 1, 8, 8), "label": torch.zeros(2)})
    assert found.tolist() == [[1, 2, 3, 4]] * 2


def test_a_module_without_that_part(foreign: ForeignModule) -> None:
    model: Any = Constant("body", ["input"], "input")
    with (
        pytest.raises(InvalidArgumentError, match="no module 'body'"),
        artifact_forward(foreign, model),
    ):
        pass
