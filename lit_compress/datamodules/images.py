"""The common part of the image datamodules: splits, loaders, raw pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_compress.datamodules.transforms import Augment, Preprocess
from lit_compress.errors import CorruptDataError, InvalidArgumentError

Batch = tuple[Tensor, Tensor]
Split = Literal["train", "val", "test"]


class PixelDataset(Dataset[Batch]):
    """Images and labels in memory, fetched by the batch.

    Args:
        images: uint8, N x C x H x W.
        labels: int64, N.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return self.images[chosen], self.labels[chosen]


class Collate:
    """Turns fetched pixels into a batch for the network; ``None`` leaves a step out."""

    def __init__(
        self,
        augment: Callable[[Tensor], Tensor] | None = None,
        preprocess: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.augment = augment
        self.preprocess = preprocess

    def __call__(self, batch: Any) -> Batch:
        """Return the transformed images and their labels."""
        images, labels = batch
        if self.augment is not None:
            images = self.augment(images)
        if self.preprocess is not None:
            images = self.preprocess(images)
        return images, labels


class ImageDataModule(LightningDataModule, ABC):
    """Images in memory as uint8, transformed by the batch; validation and test never vary.

    Args:
        batch_size: Images a batch.
        val_fraction: Share of the training images held out for validation, in [0, 1).
        split: Hold out the first images (``index``, as the paper) or seeded random ones.
        seed: Seed of the random split.
        num_workers: Loader processes. Batches are cut from memory, so 0 is best for small images.
    """

    #: Class names, by label.
    classes: tuple[str, ...]
    #: Raw pixels to network input; an exported file carries it.
    preprocess: Preprocess

    def __init__(
        self,
        batch_size: int = 64,
        val_fraction: float = 0.2,
        split: Literal["index", "random"] = "index",
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InvalidArgumentError(f"data.batch_size must be at least 1, got {batch_size}")
        if not 0 <= val_fraction < 1:
            raise InvalidArgumentError(f"data.val_fraction must be in [0, 1), got {val_fraction}")
        if split not in ("index", "random"):
            raise InvalidArgumentError(f"data.split must be 'index' or 'random', got {split!r}")
        if num_workers < 0:
            raise InvalidArgumentError(f"data.num_workers must be at least 0, got {num_workers}")
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.split = split
        self.seed = seed
        self.num_workers = num_workers
        self.augment: Augment | None = None
        self.datasets: dict[Split, PixelDataset] = {}

    @abstractmethod
    def read(self, train: bool) -> PixelDataset:
        """Return all training or all test images, from disk."""

    def read_val(self) -> PixelDataset | None:
        """Return validation images that have a place of their own; None splits the training set."""
        return None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input, known after ``setup``."""
        images = next(iter(self.datasets.values())).images
        side = self.preprocess.output_size(images.shape[-1])
        return images.shape[1], side, side

    def setup(self, stage: str) -> None:
        """Read the images that a stage needs into memory, once."""
        if stage in ("fit", "validate") and "val" not in self.datasets:
            images, own_val = self._checked(self.read(train=True)), self.read_val()
            if own_val is not None:
                self.datasets["train"], self.datasets["val"] = images, self._checked(own_val)
            else:
                held_out, rest = self._split(len(images))
                self.datasets["val"] = PixelDataset(*images.__getitems__(held_out))
                self.datasets["train"] = PixelDataset(*images.__getitems__(rest))
        if stage in ("test", "predict") and "test" not in self.datasets:
            self.datasets["test"] = self._checked(self.read(train=False))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled, augmented training batches."""
        return self._loader("train", Collate(self.augment, self.preprocess), shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the validation batches, always the same; none if ``val_fraction`` is 0."""
        if not len(self.datasets["val"]):
            return []
        return self._loader("val", Collate(preprocess=self.preprocess))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, always the same."""
        return self._loader("test", Collate(preprocess=self.preprocess))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches."""
        return self.test_dataloader()

    def pixels(self, split: Split) -> DataLoader[Batch]:
        """Return a split's batches as raw uint8 pixels, which is what an exported file takes."""
        return self._loader(split, Collate())

    def _loader(self, split: Split, collate: Collate, shuffle: bool = False) -> DataLoader[Batch]:
        return DataLoader(
            self.datasets[split],
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=collate,
            persistent_workers=self.num_workers > 0,
        )

    def _split(self, total: int) -> tuple[list[int], list[int]]:
        count = round(total * self.val_fraction)
        if self.split == "index":
            return list(range(count)), list(range(count, total))
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(total, generator=generator)
        return order[:count].sort().values.tolist(), order[count:].sort().values.tolist()

    def _checked(self, dataset: PixelDataset) -> PixelDataset:
        images, labels = dataset.images, dataset.labels
        if len(images) != len(labels) or not len(images):
            raise CorruptDataError(
                f"{type(self).__name__} read {len(images)} images and {len(labels)} labels: the "
                "files do not belong together, or are empty; get them anew"
            )
        if int(labels.min()) < 0 or int(labels.max()) >= self.num_classes:
            raise CorruptDataError(
                f"{type(self).__name__} read labels from {int(labels.min())} to "
                f"{int(labels.max())}, but has {self.num_classes} classes: get the files anew"
            )
        return dataset


def check_image_size(image_size: int | None) -> int | None:
    """Return the image size if it can be one.

    Raises:
        InvalidArgumentError: If it is below 1.
    """
    if image_size is not None and image_size < 1:
        raise InvalidArgumentError(f"data.image_size must be at least 1 pixel, got {image_size}")
    return image_size
