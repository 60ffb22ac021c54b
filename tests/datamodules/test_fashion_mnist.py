"""On files laid out as torchvision's, read a second time here by hand."""

from __future__ import annotations

import gzip
import struct
import urllib.request
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import numpy as np
import pytest
import torch

from lit_compress.datamodules import FashionMNISTDataModule
from lit_compress.errors import CorruptDataError, DataNotFoundError, InvalidArgumentError

FILES = [
    f"{prefix}-{part}-ubyte"
    for prefix in ("train", "t10k")
    for part in ("images-idx3", "labels-idx1")
]


def raw(root: Path, name: str) -> Path:
    return root / "FashionMNIST" / "raw" / name


def ready(root: Path, **options: Any) -> FashionMNISTDataModule:
    data = FashionMNISTDataModule(str(root), download=False, **options)
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    return data


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> NoReturn:
        raise URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_images_and_labels_are_those_of_the_files(fashion_mnist_dir: Path) -> None:
    data = ready(fashion_mnist_dir)
    train = np.fromfile(raw(fashion_mnist_dir, FILES[0]), np.uint8, offset=16)
    train = train.reshape(200, 1, 28, 28)
    test = np.fromfile(raw(fashion_mnist_dir, FILES[2]), np.uint8, offset=16)
    labels = np.fromfile(raw(fashion_mnist_dir, FILES[1]), np.uint8, offset=8)
    assert np.array_equal(data.datasets["val"].images, train[:40])
    assert np.array_equal(data.datasets["train"].images, train[40:])
    assert np.array_equal(data.datasets["test"].images, test.reshape(50, 1, 28, 28))
    assert np.array_equal(data.datasets["train"].labels, labels[40:])
    assert data.datasets["train"].labels.dtype == torch.int64
    assert data.num_classes == 10


def test_batches_are_padded_and_normalised(fashion_mnist_dir: Path) -> None:
    data = ready(fashion_mnist_dir)
    assert data.image_shape == (1, 32, 32)
    images, _ = next(iter(data.test_dataloader()))
    padded = np.pad(data.datasets["test"].images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    np.testing.assert_allclose(images.numpy(), (padded / 255 - 0.286) / 0.353, atol=1e-5)
    pixels, _ = next(iter(data.pixels("test")))
    assert pixels.shape == (50, 1, 28, 28)
    assert torch.equal(data.preprocess(pixels), images)


@pytest.mark.parametrize(
    ("options", "side"),
    [({"image_size": 63}, 63), ({"pad": 0}, 28), ({"pad": 0, "image_size": 8}, 8)],
)
def test_sizes(fashion_mnist_dir: Path, options: dict[str, int], side: int) -> None:
    data = ready(fashion_mnist_dir, batch_size=8, **options)
    assert data.image_shape == (1, side, side)
    assert next(iter(data.train_dataloader()))[0].shape == (8, 1, side, side)


def test_image_size_that_cannot_be() -> None:
    with pytest.raises(InvalidArgumentError, match=r"data\.image_size must be at least 1"):
        FashionMNISTDataModule(image_size=0)


@pytest.mark.parametrize("missing", FILES)
def test_missing_files(
    fashion_mnist_dir: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw(fashion_mnist_dir, missing).unlink()
    monkeypatch.chdir(fashion_mnist_dir.parent)
    data = FashionMNISTDataModule(fashion_mnist_dir.name, download=False)
    message = (
        rf"FashionMNIST is not under {fashion_mnist_dir} "
        rf"\(looked for FashionMNIST/raw/{missing}\), and data\.download is false.*"
        r"--data\.data_dir .*--data\.download true"
    )
    with pytest.raises(DataNotFoundError, match=message):
        data.prepare_data()
    with pytest.raises(DataNotFoundError, match=message):
        data.setup("fit" if missing.startswith("train") else "test")


@pytest.mark.usefixtures("offline")
def test_a_download_that_fails(tmp_path: Path) -> None:
    data = FashionMNISTDataModule(str(tmp_path))
    with pytest.raises(
        DataNotFoundError, match=r"the download failed: .*--data\.data_dir .*--data\.download true"
    ):
        data.prepare_data()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("missing", FILES)
def test_a_download_cut_short_is_taken_up_again(fashion_mnist_dir: Path, missing: str) -> None:
    """torchvision wants all four files for either split: a missing one was called corrupt."""
    raw(fashion_mnist_dir, missing).unlink()
    raw(fashion_mnist_dir, missing + ".gz").unlink()
    with pytest.raises(DataNotFoundError, match=rf"raw/{missing}\), and the download failed"):
        FashionMNISTDataModule(str(fashion_mnist_dir)).prepare_data()


@pytest.mark.usefixtures("offline")
def test_files_that_are_there_are_not_downloaded(fashion_mnist_dir: Path) -> None:
    data = FashionMNISTDataModule(str(fashion_mnist_dir), download=True)
    data.prepare_data()
    data.setup("fit")
    assert len(data.datasets["train"]) == 160


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 2, 7, 12, 30, -1])
def test_a_truncated_file(fashion_mnist_dir: Path, name: str, keep: int) -> None:
    path = raw(fashion_mnist_dir, name)
    path.write_bytes(path.read_bytes()[:keep])
    data = FashionMNISTDataModule(str(fashion_mnist_dir), download=False)
    with pytest.raises(
        CorruptDataError, match=rf"under {fashion_mnist_dir} exist but cannot be read .*delete"
    ):
        data.prepare_data()


def test_files_that_do_not_belong_together(fashion_mnist_dir: Path) -> None:
    labels = raw(fashion_mnist_dir, FILES[1])
    labels.write_bytes(struct.pack(">2i", 2049, 199) + bytes(199))
    with pytest.raises(CorruptDataError, match="read 200 images and 199 labels"):
        ready(fashion_mnist_dir)
    labels.write_bytes(struct.pack(">2i", 2049, 200) + bytes([10]) * 200)
    with pytest.raises(CorruptDataError, match="labels from 10 to 10, but has 10 classes"):
        ready(fashion_mnist_dir)


def test_a_packed_file_in_place_of_the_plain_one(fashion_mnist_dir: Path) -> None:
    path = raw(fashion_mnist_dir, FILES[0])
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(CorruptDataError, match="cannot be read"):
        FashionMNISTDataModule(str(fashion_mnist_dir), download=False).setup("fit")
