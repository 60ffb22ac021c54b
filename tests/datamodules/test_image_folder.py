"""Pictures drawn here, saved without loss, and read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from lit_compress.datamodules import ImageFolderDataModule
from lit_compress.datamodules.image_folder import ENDINGS
from lit_compress.errors import CorruptDataError, DataNotFoundError, InvalidArgumentError

Saver = Callable[..., np.ndarray]


@pytest.fixture
def save(tmp_path: Path) -> Saver:
    random = np.random.default_rng(0)

    def make(path: str, height: int = 6, width: int = 6, channels: int = 3) -> np.ndarray:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        shape = (height, width, channels) if channels > 1 else (height, width)
        pixels = random.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        return pixels.reshape(height, width, channels).transpose(2, 0, 1)

    return make


def module(root: Path, **options: Any) -> ImageFolderDataModule:
    return ImageFolderDataModule(str(root), **{"image_size": 6, **options})


def test_pictures_classes_and_labels(tmp_path: Path, save: Saver) -> None:
    paths = ["zebra/1.png", "ant/b.PNG", "ant/a.bmp", "bee/x.png"]
    pictures = {path: save(f"train/{path}") for path in paths}
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / "list.csv").write_text("no class")
    data = module(tmp_path)
    assert data.classes == ("ant", "bee", "zebra")
    assert data.num_classes == 3
    order = ["ant/a.bmp", "ant/b.PNG", "bee/x.png", "zebra/1.png"]
    train = data.read(train=True)
    assert np.array_equal(train.images, np.stack([pictures[path] for path in order]))
    assert train.labels.tolist() == [0, 0, 1, 2]
    assert train.images.dtype == torch.uint8
    data.setup("fit")
    assert data.image_shape == (3, 6, 6)


@pytest.mark.parametrize(("height", "width"), [(6, 10), (10, 6)])
def test_the_centre_of_a_picture_that_is_not_square(
    tmp_path: Path, save: Saver, height: int, width: int
) -> None:
    picture = save("train/a/1.png", height, width)
    top, left = (height - 6) // 2, (width - 6) // 2
    expected = picture[None, :, top : top + 6, left : left + 6]
    assert np.array_equal(module(tmp_path).read(train=True).images, expected)


def test_pictures_keep_their_size(tmp_path: Path, save: Saver) -> None:
    pictures = [save(f"{split}/a/1.png", 7, 7) for split in ("train", "val", "test")]
    data = ImageFolderDataModule(str(tmp_path))
    data.setup("fit")
    data.setup("test")
    assert data.image_shape == (3, 7, 7)
    found = [data.datasets[split].images[0] for split in ("train", "val", "test")]
    assert np.array_equal(found, pictures)


@pytest.mark.parametrize("place", ["train/b/2.png", "val/a/1.png", "test/a/1.png"])
@pytest.mark.parametrize(
    ("size", "words"), [((8, 8), "8 x 8 pixels, not 7 x 7"), ((7, 9), "9 x 7 pixels, no square")]
)
def test_mixed_sizes_are_refused(
    tmp_path: Path, save: Saver, place: str, size: tuple[int, int], words: str
) -> None:
    """They were scaled to 64 pixels, whatever they showed."""
    for path in ("train/a/1.png", "train/b/1.png"):
        save(path, 7, 7)
    save(place, *size)
    stage = "test" if place.startswith("test") else "fit"
    with pytest.raises(CorruptDataError, match=rf"{place} has {words}.*data\.image_size"):
        ImageFolderDataModule(str(tmp_path)).setup(stage)
    ImageFolderDataModule(str(tmp_path), image_size=7).setup(stage)


def test_the_endings_are_those_of_torchvision() -> None:
    assert ENDINGS == IMG_EXTENSIONS


def test_a_larger_picture_is_scaled(tmp_path: Path) -> None:
    halves = np.zeros((24, 36, 3), np.uint8)
    halves[:, 18:] = 200
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(halves).save(tmp_path / "train" / "a" / "1.png")
    image = module(tmp_path).read(train=True).images[0]
    assert image.shape == (3, 6, 6)
    columns = image.float().mean((0, 1)).tolist()
    assert columns == pytest.approx([0, 0, 0, 200, 200, 200], abs=15)
    assert columns[0] == 0
    assert columns[5] == 200


def test_grey_and_colour(tmp_path: Path, save: Saver) -> None:
    grey, colour = save("train/a/1.png", channels=1), save("train/a/2.png")
    images = module(tmp_path, in_channels=1).read(train=True).images.numpy().astype(float)
    assert images.shape == (2, 1, 6, 6)
    assert np.array_equal(images[0], grey)
    luma = np.tensordot([0.299, 0.587, 0.114], colour, 1)
    np.testing.assert_allclose(images[1, 0], luma, atol=1)
    images = module(tmp_path).read(train=True).images
    assert np.array_equal(images[0], np.repeat(grey, 3, 0))


def test_folders_of_their_own_for_validation_and_test(tmp_path: Path, save: Saver) -> None:
    save("train/a/1.png")
    save("train/b/1.png")
    val, test = save("val/b/1.png"), save("test/b/2.png")
    data = module(tmp_path)
    data.setup("fit")
    data.setup("test")
    assert {name: len(dataset) for name, dataset in data.datasets.items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    assert np.array_equal(data.datasets["val"].images[0], val)
    assert np.array_equal(data.datasets["test"].images[0], test)
    assert data.datasets["val"].labels.tolist() == data.datasets["test"].labels.tolist() == [1]


def test_a_share_is_held_out_at_random(tmp_path: Path, save: Saver) -> None:
    for index in range(20):
        save(f"train/{'ab'[index // 10]}/{index}.png")

    def held_out(**options: Any) -> list[bytes]:
        data = module(tmp_path, **options)
        data.setup("fit")
        assert len(data.datasets["train"]) == 16
        return [image.numpy().tobytes() for image in data.datasets["val"].images]

    assert len(held_out()) == 4
    assert held_out() == held_out()
    assert any(held_out(seed=seed) != held_out() for seed in (1, 2, 3))
    images = module(tmp_path).read(train=True).images
    first = [image.numpy().tobytes() for image in images[:4]]
    assert held_out(split="index") == first


def test_batches_are_normalised(tmp_path: Path, save: Saver) -> None:
    save("train/a/1.png")
    picture = save("test/a/1.png")
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.5, 0.6])
    data = module(tmp_path, mean=mean.tolist(), std=std.tolist())
    data.setup("test")
    (images, _) = next(iter(data.test_dataloader()))
    expected = (picture / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(images[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_missing_folders(tmp_path: Path, save: Saver, stage: str) -> None:
    save(f"{'test' if stage == 'fit' else 'train'}/a/1.png")
    split = "train" if stage == "fit" else "test"
    with pytest.raises(
        DataNotFoundError,
        match=rf"the folder {tmp_path}/{split}, which does not exist: .* under --data\.data_dir",
    ):
        module(tmp_path).setup(stage)


def test_the_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataNotFoundError, match=rf"needs the folder {tmp_path}/nowhere/train"):
        module(Path("nowhere")).num_classes  # noqa: B018


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_folders_without_pictures(tmp_path: Path, save: Saver, split: str) -> None:
    for other in {"train", "val", "test"} - {split}:
        save(f"{other}/a/1.png")
    (tmp_path / split / "a").mkdir(parents=True)
    (tmp_path / split / "a" / "notes.txt").write_text("no picture")
    data = module(tmp_path)
    with pytest.raises(DataNotFoundError, match=rf"{split} has no pictures: .*\.png"):
        data.setup("test" if split == "test" else "fit")


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "ppm", "pgm", "webp"])
@pytest.mark.parametrize("keep", [0.0, 0.05, 0.5])
def test_a_truncated_picture(tmp_path: Path, save: Saver, kind: str, keep: float) -> None:
    """Of a cut .ppm or .pgm Pillow raises ValueError, which came out as it was."""
    save(f"train/a/1.{kind}", 20, 20, 1 if kind == "pgm" else 3)
    path = tmp_path / "train" / "a" / f"1.{kind}"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CorruptDataError, match=rf"{path} cannot be read .*fix or"):
        module(tmp_path).setup("fit")


@pytest.mark.parametrize("keep", [1, 2, 3, 5, 7, 9, 11, 14])
def test_a_picture_cut_in_its_header(tmp_path: Path, save: Saver, keep: int) -> None:
    save("train/a/1.ppm", 20, 20)
    path = tmp_path / "train" / "a" / "1.ppm"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptDataError, match="cannot be read"):
        module(tmp_path).setup("fit")


def test_a_text_that_is_called_a_picture(tmp_path: Path, save: Saver) -> None:
    save("train/a/1.png")
    (tmp_path / "train" / "a" / "2.png").write_text("hello")
    with pytest.raises(CorruptDataError, match=r"2\.png cannot be read"):
        module(tmp_path).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, r"data\.image_size must be at least 1 pixel, got 0"),
        ({"mean": (0.1, 0.2)}, r"need 1 or 3 values, got \[0\.1, 0\.2\] and"),
        ({"std": (0.1, 0.2, 0.3), "in_channels": 1}, r"need 1 or 1 values"),
        ({"std": ()}, r"need 1 or 3 values, got \[0\.5\] and \[\]"),
        ({"batch_size": 0}, r"data\.batch_size"),
    ],
)
def test_arguments_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        module(tmp_path, **options)


def test_a_class_without_pictures_is_refused(tmp_path: Path) -> None:
    """The network had a class that no picture is of, and nothing said so."""
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(DataNotFoundError, match="the class b has no pictures"):
        ImageFolderDataModule(str(tmp_path), image_size=4).setup("fit")
