"""Reading the first batches, and comparing labels with classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from doctor.faults import Net, diagnosed, healthy
from lit_compress.callbacks import PostTrainingQuantization
from lit_compress.doctor.data import BATCHES, Split, check_labels, shapes
from lit_compress.doctor.finding import joined


def split(*tensors: Tensor, size: int = 4) -> Split:
    return Split("training data", [DataLoader(TensorDataset(*tensors), batch_size=size)])


@pytest.mark.parametrize("batch", [0, BATCHES - 1])
def test_the_batch_with_nan_is_named(batch: int) -> None:
    images = torch.zeros(4 * BATCHES, 2)
    images[4 * batch, 1] = float("nan")
    found = joined("data", split(images, torch.arange(4 * BATCHES)).check())
    assert found.verdict == "error"
    assert found.found.startswith(f"batch[0] of batch {batch} of the training data holds 1 values")


def test_a_mapping_names_its_key() -> None:
    data = [{"image": torch.tensor([1.0, float("inf")]), "id": 3} for _ in range(4)]
    found = joined("data", Split("validation data", [DataLoader(data)]).check())  # type: ignore[arg-type]
    assert "batch['image'] of batch 0" in found.found


def test_a_stream_that_can_be_read_once_is_not_read() -> None:
    class Stream(IterableDataset[Tensor]):
        def __init__(self) -> None:
            self.source = (torch.zeros(2) for _ in range(8))

        def __iter__(self) -> Iterator[Tensor]:
            return self.source

    stream = Stream()
    found = joined("data", Split("training data", [DataLoader(stream)]).check())
    assert found.verdict == "fine"
    assert len(list(stream)) == 8


@pytest.mark.parametrize(
    ("label", "fails", "verdict"),
    [
        (3, True, "fine"),
        (4, True, "error"),
        (-1, True, "error"),
        (-100, True, "fine"),
        (255, True, "fine"),
        (9, False, "fine"),
    ],
)
def test_labels_are_compared_with_the_classes(label: int, fails: bool, verdict: str) -> None:
    """A loss of embeddings takes any label, so the step of the user decides."""
    labels = torch.tensor([0, 1, 2, label])
    given = split(torch.randn(4, 1, 8, 8), labels)
    given.check()
    found = joined("labels", check_labels([given], Net().eval(), lambda *_: fails))
    assert found.verdict == verdict
    assert (f"label {label}" in found.found) == (verdict == "error")


def test_data_without_labels_are_fine() -> None:
    given = split(torch.randn(4, 1, 8, 8))
    given.check()
    found = joined("labels", check_labels([given], Net().eval(), lambda *_: True))
    assert found.found == "the batches have no labels of classes"
    assert shapes("text") == "str"


def test_nan_beyond_the_first_batches_is_found_where_it_is_calibrated_with(tmp_path: Path) -> None:
    """Calibration draws from all of the data, and the first batches alone were read."""
    case = healthy(tmp_path)
    count = 16 * (BATCHES + 1)
    case.val = [torch.randn(count, 1, 8, 8), torch.arange(count) % 4]
    case.val[0][16 * BATCHES :, 0, 0, 0] = float("nan")
    case.callbacks = [PostTrainingQuantization(calibration_batches=BATCHES + 1)]
    (error,) = diagnosed(case).errors
    assert error.question == "calibration data"
    assert "NaN" in error.found


def test_constant_calibration_data_is_a_warning(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.val[0][:] = 1.0
    case.callbacks = [PostTrainingQuantization()]
    found = {one.question: one for one in diagnosed(case).findings}
    assert found["calibration data"].verdict == "warning"
    assert "is 1 in all of the calibration data" in found["calibration data"].found


def test_reading_leaves_the_generator_of_a_loader(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    data: Any = TensorDataset(torch.randn(16, 2))
    loader = DataLoader(data, shuffle=True, generator=generator)
    before = generator.get_state()
    assert joined("data", Split("training data", [loader]).check()).verdict == "fine"
    assert torch.equal(generator.get_state(), before)
