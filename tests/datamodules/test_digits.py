from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lit_compress.datamodules import DigitsDataModule
from lit_compress.errors import DataNotFoundError


@pytest.fixture(scope="module")
def digits() -> DigitsDataModule:
    made = DigitsDataModule()
    for stage in ("fit", "test"):
        made.setup(stage)
    return made


def test_splits(digits: DigitsDataModule) -> None:
    target = load_digits().target
    sizes = {name: len(dataset) for name, dataset in digits.datasets.items()}
    assert sizes == {"train": 1150, "val": 287, "test": 360}
    parts = [digits.datasets[name].labels for name in ("val", "train", "test")]
    assert torch.cat(parts).tolist() == target.tolist()
    assert digits.classes == tuple("0123456789")
    assert digits.image_shape == (1, 32, 32)


def test_pixels_are_the_scans_scaled(digits: DigitsDataModule) -> None:
    at = (np.arange(32) + 0.5) / 4 - 0.5
    for index in (0, 5, 286):
        small = load_digits().images[index]
        rows = np.stack([np.interp(at, np.arange(8), column) for column in small.T], axis=1)
        large = np.stack([np.interp(at, np.arange(8), row) for row in rows])
        pixels = digits.datasets["val"].images[index, 0]
        assert pixels.dtype == torch.uint8
        np.testing.assert_allclose(pixels.numpy(), large * 255 / 16, atol=0.501)


def test_batches(digits: DigitsDataModule) -> None:
    first, second = (list(digits.test_dataloader()) for _ in range(2))
    assert [len(labels) for _, labels in first] == [64] * 5 + [40]
    for (images, labels), (again, same) in zip(first, second, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)
    pixels, _ = next(iter(digits.pixels("test")))
    np.testing.assert_allclose(first[0][0].numpy(), pixels.numpy() / 127.5 - 1, atol=1e-6)


def test_digits_are_not_mirrored() -> None:
    digits = DigitsDataModule(crop=0)
    digits.setup("fit")
    plain = {
        image.numpy().tobytes() for image in digits.preprocess(digits.datasets["train"].images)
    }
    for images, _ in digits.train_dataloader():
        assert all(image.numpy().tobytes() in plain for image in images)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        DataNotFoundError, match=r"scikit-learn.*pip install 'lit-compress\[demo\]'"
    ):
        DigitsDataModule().setup("fit")
