"""On batches laid out as torchvision's, read a second time here by hand."""

from __future__ import annotations

import pickle
import urllib.request
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import numpy as np
import pytest
import torch

from lit_compress.datamodules import CIFAR10DataModule
from lit_compress.errors import CorruptDataError, DataNotFoundError, InvalidArgumentError

FOLDER = "cifar-10-batches-py"
FILES = [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]


def ready(root: Path, **options: Any) -> CIFAR10DataModule:
    data = CIFAR10DataModule(str(root), download=False, **options)
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    return data


def by_hand(root: Path, name: str) -> tuple[np.ndarray, list[int]]:
    content = pickle.loads((root / FOLDER / name).read_bytes())  # noqa: S301
    return content["data"].reshape(-1, 3, 32, 32), content["labels"]


def test_images_and_labels_are_those_of_the_files(cifar10_dir: Path) -> None:
    data = ready(cifar10_dir)
    batches = [by_hand(cifar10_dir, name) for name in FILES]
    assert np.array_equal(data.datasets["val"].images, batches[0][0])
    rest = np.concatenate([images for images, _ in batches[1:5]])
    assert np.array_equal(data.datasets["train"].images, rest)
    assert np.array_equal(data.datasets["test"].images, batches[5][0])
    assert data.datasets["test"].labels.tolist() == batches[5][1]
    assert data.datasets["train"].labels.dtype == torch.int64
    assert (data.num_classes, data.image_shape) == (10, (3, 32, 32))


def test_batches_are_normalised_by_channel(cifar10_dir: Path) -> None:
    data = ready(cifar10_dir)
    (images, _), (pixels, _) = next(iter(data.val_dataloader())), next(iter(data.pixels("val")))
    for channel, (mean, std) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        expected = (pixels[:, channel].numpy() / 255 - mean) / std
        np.testing.assert_allclose(images[:, channel].numpy(), expected, atol=1e-5)
    assert torch.equal(data.preprocess(pixels), images)
    assert torch.equal(next(iter(data.val_dataloader()))[0], images)


def test_image_size(cifar10_dir: Path) -> None:
    data = ready(cifar10_dir, image_size=63, batch_size=8)
    assert data.image_shape == (3, 63, 63)
    assert next(iter(data.train_dataloader()))[0].shape == (8, 3, 63, 63)
    with pytest.raises(InvalidArgumentError, match=r"data\.image_size must be at least 1"):
        CIFAR10DataModule(image_size=-1)


@pytest.mark.parametrize("missing", FILES)
def test_missing_files(cifar10_dir: Path, missing: str) -> None:
    (cifar10_dir / FOLDER / missing).unlink()
    with pytest.raises(
        DataNotFoundError,
        match=rf"CIFAR-10 is not under {cifar10_dir} \(looked for {FOLDER}/{missing}\), and "
        r"data\.download is false.*--data\.data_dir .*--data\.download true",
    ):
        CIFAR10DataModule(str(cifar10_dir), download=False).prepare_data()


def test_an_empty_folder(tmp_path: Path) -> None:
    data = CIFAR10DataModule(str(tmp_path), download=False)
    message = rf"looked for {FOLDER}/data_batch_1, {FOLDER}/data_batch_2 \.\.\.\)"
    for stage in ("fit", "test"):
        with pytest.raises(DataNotFoundError, match=message):
            data.setup(stage)


def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> NoReturn:
        raise URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DataNotFoundError, match=r"the download failed: .*no network here.*Either"):
        CIFAR10DataModule(str(tmp_path)).prepare_data()


@pytest.mark.parametrize("name", [*FILES[:1], *FILES[4:], "batches.meta"])
@pytest.mark.parametrize("keep", [0, 20, -1])
def test_a_truncated_file(cifar10_dir: Path, name: str, keep: int) -> None:
    path = cifar10_dir / FOLDER / name
    path.write_bytes(path.read_bytes()[:keep])
    data = CIFAR10DataModule(str(cifar10_dir), download=False)
    with pytest.raises(
        CorruptDataError, match=rf"CIFAR-10 under {cifar10_dir} exist but cannot be read"
    ):
        data.setup("test" if name == "test_batch" else "fit")


def test_a_pickle_with_code_is_not_run(cifar10_dir: Path, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    (cifar10_dir / FOLDER / "data_batch_3").write_bytes(pickle.dumps(Code()))
    with pytest.raises(CorruptDataError, match="cannot be read"):
        CIFAR10DataModule(str(cifar10_dir), download=False).setup("fit")
    assert not (tmp_path / "ran").exists()
