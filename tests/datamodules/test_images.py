"""Splits, loaders and raw pixels of the common part, on images that carry their own number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from lit_compress.datamodules import ImageDataModule, Preprocess
from lit_compress.datamodules.images import Collate, PixelDataset, check_image_size
from lit_compress.datamodules.transforms import Augment
from lit_compress.errors import CorruptDataError, InvalidArgumentError


def numbered(total: int, first: int = 0) -> PixelDataset:
    """Noise whose first two pixels are the image's number, in base 256; its label follows it."""
    generator = torch.Generator().manual_seed(first)
    images = torch.randint(0, 256, (total, 1, 4, 4), generator=generator, dtype=torch.uint8)
    number = torch.arange(first, first + total)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = number // 256, number % 256
    return PixelDataset(images, number % 3)


class Numbered(ImageDataModule):
    classes = ("a", "b", "c")

    def __init__(self, total: int = 50, own_val: int = 0, **options: Any) -> None:
        super().__init__(**{"batch_size": 16, **options})
        self.total, self.own_val = total, own_val
        self.preprocess = Preprocess([0.5], [0.25], pad=1)
        self.augment = Augment(flip=True, crop=1)
        self.reads: list[bool] = []

    def read(self, train: bool) -> PixelDataset:
        self.reads.append(train)
        return numbered(self.total) if train else numbered(20, 10_000)

    def read_val(self) -> PixelDataset | None:
        return numbered(self.own_val, 5000) if self.own_val else None


def ready(*args: Any, **options: Any) -> Numbered:
    made = Numbered(*args, **options)
    made.setup("fit")
    made.setup("test")
    return made


def numbers(dataset: PixelDataset) -> list[int]:
    pixels = dataset.images[:, 0, 0, :2].long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def batches(loader: Any) -> list[tuple[Tensor, Tensor]]:
    assert isinstance(loader, DataLoader)
    return list(loader)


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def test_split_by_index_holds_out_the_first() -> None:
    data = ready(50)
    assert numbers(data.datasets["val"]) == list(range(10))
    assert numbers(data.datasets["train"]) == list(range(10, 50))
    assert numbers(data.datasets["test"]) == list(range(10_000, 10_020))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["index", "random"]),
    st.integers(0, 2**32),
)
def test_splits_are_disjoint_and_complete(
    total: int, fraction: float, split: str, seed: int
) -> None:
    data = Numbered(total, val_fraction=fraction, split=split, seed=seed)
    data.setup("fit")
    train, val = numbers(data.datasets["train"]), numbers(data.datasets["val"])
    assert sorted(train + val) == list(range(total))
    assert abs(len(val) - total * fraction) <= 0.5
    for name in ("train", "val"):
        dataset = data.datasets[name]
        assert dataset.labels.tolist() == [number % 3 for number in numbers(dataset)]


def test_random_split_follows_its_seed_only() -> None:
    def held_out(**options: Any) -> list[int]:
        data = Numbered(100, split="random", **options)
        data.setup("fit")
        return numbers(data.datasets["val"])

    torch.manual_seed(1)
    first, state = held_out(seed=3), torch.get_rng_state()
    torch.manual_seed(2)
    assert held_out(seed=3) == first
    torch.manual_seed(1)
    held_out(seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert held_out(seed=4) != first
    assert first != list(range(20))
    assert len(first) == 20


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_batches_never_vary(split: str) -> None:
    data = ready(100)
    make = data.val_dataloader if split == "val" else data.test_dataloader
    loader = make()
    first = batches(loader)
    batches(data.train_dataloader())
    assert same(first, batches(loader))
    assert same(first, batches(make()))
    assert (
        torch.cat([labels for _, labels in first]).tolist() == data.datasets[split].labels.tolist()
    )


def test_predict_batches_are_the_test_batches() -> None:
    data = ready()
    assert same(batches(data.predict_dataloader()), batches(data.test_dataloader()))


@pytest.mark.parametrize("split", ["val", "test"])
def test_pixels_preprocessed_are_the_batches_of_the_loader(split: str) -> None:
    data = ready(100)
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    raw = batches(data.pixels(split))
    assert {images.dtype for images, _ in raw} == {torch.uint8}
    assert torch.equal(torch.cat([images for images, _ in raw]), data.datasets[split].images)
    made = [(data.preprocess(images), labels) for images, labels in raw]
    assert same(made, batches(loader))


def test_batches_are_preprocessed_as_by_hand() -> None:
    data = ready(50)
    images, labels = batches(data.val_dataloader())[0]
    expected = np.pad(data.datasets["val"].images.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = (expected / 255 - 0.5) / 0.25
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-5)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_training_batches_are_shuffled_augmented_and_repeatable() -> None:
    data = ready(100)
    plain = {image.numpy().tobytes() for image in data.preprocess(data.datasets["train"].images)}

    def epoch(seed: int) -> list[tuple[Tensor, Tensor]]:
        torch.manual_seed(seed)
        return batches(data.train_dataloader())

    first = epoch(0)
    assert [len(labels) for _, labels in first] == [16] * 5
    labels = torch.cat([labels for _, labels in first])
    assert labels.tolist() != data.datasets["train"].labels.tolist()
    assert labels.bincount().tolist() == data.datasets["train"].labels.bincount().tolist()
    changed = sum(image.numpy().tobytes() not in plain for images, _ in first for image in images)
    assert changed > 40
    assert same(first, epoch(0))
    assert not same(first, epoch(1))


def test_last_batch_may_be_smaller() -> None:
    assert [len(labels) for _, labels in batches(ready().test_dataloader())] == [16, 4]


def test_without_a_validation_share_there_is_no_validation_loader() -> None:
    """An empty list of indices became a float tensor, which indexes nothing."""
    data = ready(50, val_fraction=0)
    assert data.val_dataloader() == []
    assert len(data.datasets["train"]) == 50


def test_validation_images_of_their_own() -> None:
    data = ready(50, own_val=7)
    assert numbers(data.datasets["train"]) == list(range(50))
    assert numbers(data.datasets["val"]) == list(range(5000, 5007))


def test_each_stage_reads_what_it_needs_once() -> None:
    data = Numbered()
    data.setup("test")
    assert data.reads == [False]
    for stage in ("fit", "validate", "fit", "test", "predict"):
        data.setup(stage)
    assert data.reads == [False, True]


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_image_shape_is_that_of_the_batches(stage: str) -> None:
    data = Numbered()
    data.setup(stage)
    assert data.image_shape == (1, 6, 6)
    data.preprocess = Preprocess([0.5], [0.25], pad=1, image_size=9)
    assert data.image_shape == (1, 9, 9)
    loader = data.val_dataloader() if stage in ("fit", "validate") else data.test_dataloader()
    assert batches(loader)[0][0].shape[1:] == (1, 9, 9)
    assert data.num_classes == 3


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_loader_process_gives_the_same_batches() -> None:
    data = ready(50)
    expected = batches(data.val_dataloader())
    data.num_workers = 1
    loader = data.val_dataloader()
    assert same(batches(loader), expected)
    assert same(batches(loader), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size must be at least 1, got 0"),
        ({"val_fraction": 1.0}, r"data\.val_fraction must be in \[0, 1\), got 1\.0"),
        ({"val_fraction": -0.1}, r"data\.val_fraction .* got -0\.1"),
        ({"val_fraction": float("nan")}, r"data\.val_fraction .* got nan"),
        ({"num_workers": -1}, r"data\.num_workers must be at least 0, got -1"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Numbered(**options)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (4, [0, 1, 2], "Given read 4 images and 3 labels"),
        (3, [0, 1, 2, 0], "Given read 3 images and 4 labels"),
        (0, [], "Given read 0 images and 0 labels"),
        (3, [0, 1, 3], "labels from 0 to 3, but has 3 classes"),
        (3, [-1, 1, 2], "labels from -1 to 2, but has 3 classes"),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_data_that_cannot_be(images: int, labels: list[int], message: str, stage: str) -> None:
    class Given(Numbered):
        def read(self, train: bool) -> PixelDataset:
            pixels = torch.zeros(images, 1, 4, 4, dtype=torch.uint8)
            return PixelDataset(pixels, torch.tensor(labels, dtype=torch.int64))

    with pytest.raises(CorruptDataError, match=message):
        Given().setup(stage)


def test_own_validation_data_are_checked_too() -> None:
    class Given(Numbered):
        def read_val(self) -> PixelDataset:
            return PixelDataset(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([3]))

    with pytest.raises(CorruptDataError, match="labels from 3 to 3"):
        Given().setup("fit")


def test_image_sizes() -> None:
    assert check_image_size(None) is None
    assert check_image_size(1) == 1
    with pytest.raises(InvalidArgumentError, match=r"data\.image_size must be .* got 0"):
        check_image_size(0)


def test_pixels_are_fetched_one_by_one_or_together() -> None:
    dataset = numbered(9)
    images, labels = dataset.__getitems__([7, 2, 2])
    assert labels.tolist() == [1, 2, 2]
    assert [int(image[0, 0, 1]) for image in images] == [7, 2, 2]
    image, label = dataset[7]
    assert torch.equal(image, images[0])
    assert label == 1
    assert len(dataset) == 9


def test_collate_augments_before_it_preprocesses() -> None:
    images, labels = torch.full((2, 1, 2, 2), 3, dtype=torch.uint8), torch.tensor([0, 1])
    made, kept = Collate(lambda x: x + 1, lambda x: x.float() * 10)((images, labels))
    assert made.unique().tolist() == [40]
    assert kept is labels
    assert Collate()((images, labels)) == (images, labels)
