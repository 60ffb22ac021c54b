"""The base class of the image datamodules: splits, loaders, raw pixels."""

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
from lit_compress.evaluation.data_protocols import Split

#: Images and their labels.
Batch = tuple[Tensor, Tensor]


class PixelDataset(Dataset[Batch]):
    """Images and labels in memory; a loader fetches a whole batch with one indexing.

    Args:
        images: The pixels, uint8, N x C x H x W.
        labels: The class of each image, int64, N.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a batch: DataLoader calls it, if it exists, instead of ``__getitem__``."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return self.images[chosen], self.labels[chosen]


class Collate:
    """Turns the pixels of a batch into network input; a loader process runs it.

    Args:
        augment: Changes the pixels at random. Default: not done.
        preprocess: Turns the pixels into network input. Default: not done.
    """

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
    """Base class of datamodules that keep images as uint8 in memory and transform whole batches.

    Validation and test batches are the same each time. A subclass implements :meth:`read`, and sets
    ``classes``, ``preprocess`` and, if training images are to be augmented, ``augment``.

    Args:
        batch_size: Number of images in a batch, at least 1.
        val_fraction: Share of the training images to hold out for validation, in [0, 1).
        split: Hold out the first images (``index``, as in the paper) or random ones (``random``).
        seed: Random seed of the split; not used with ``split="index"``.
        num_workers: Number of loader processes. Batches are cut from memory, so 0 (no other
            process) is fastest for small images.

    Attributes:
        augment: Changes training images at random; None switches it off.
        datasets: The images that are in memory, by split.

    Raises:
        InvalidArgumentError: If an argument is out of its range.
    """

    #: Class names, by label.
    classes: tuple[str, ...]
    #: Turns raw pixels into network input. An exported file can contain it.
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
        """Read all training or all test images from disk.

        Args:
            train: Whether to read the training images.
        """

    def read_val(self) -> PixelDataset | None:
        """Read the validation images; None, the default, takes them from the training images."""
        return None

    @property
    def num_classes(self) -> int:
        """Number of classes, from the length of ``classes``."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input; available after ``setup``."""
        images = next(iter(self.datasets.values())).images
        side = self.preprocess.output_size(images.shape[-1])
        return images.shape[1], side, side

    def setup(self, stage: str) -> None:
        """Read the images of a stage into memory, once.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            CorruptDataError: If images and labels do not match, or a label is out of range.
        """
        if stage in ("fit", "validate") and "val" not in self.datasets:
            images, own_val = self._checked(self.read(train=True)), self.read_val()
            if own_val is not None:
                self.datasets["train"], self.datasets["val"] = images, self._checked(own_val)
            else:
                held_out, rest = self._split_indices(len(images))
                self.datasets["val"] = PixelDataset(*images.__getitems__(held_out))
                self.datasets["train"] = PixelDataset(*images.__getitems__(rest))
        if stage in ("test", "predict") and "test" not in self.datasets:
            self.datasets["test"] = self._checked(self.read(train=False))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return training batches, shuffled and augmented."""
        return self._loader("train", Collate(self.augment, self.preprocess), shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return validation batches, the same each time; an empty list if there are no images."""
        if not len(self.datasets["val"]):
            return []
        return self._loader("val", Collate(preprocess=self.preprocess))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return test batches, the same each time."""
        return self._loader("test", Collate(preprocess=self.preprocess))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches for prediction."""
        return self.test_dataloader()

    def pixels(self, split: Split) -> DataLoader[Batch]:
        """Return the batches of a split as raw pixels, as an exported file takes them.

        Args:
            split: The split; its images must be in memory (see :meth:`setup`).

        Returns:
            A loader of uint8 images (N x C x H x W, before padding and resizing) and labels (N).
        """
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

    def _split_indices(self, total: int) -> tuple[list[int], list[int]]:
        """Return the indices of the images held out for validation, and of the others, rising."""
        count = round(total * self.val_fraction)
        if self.split == "index":
            return list(range(count)), list(range(count, total))
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(total, generator=generator)
        return order[:count].sort().values.tolist(), order[count:].sort().values.tolist()

    def _checked(self, dataset: PixelDataset) -> PixelDataset:
        """Return a data set if its labels match its images and classes."""
        images, labels = dataset.images, dataset.labels
        if len(images) != len(labels) or not len(images):
            raise CorruptDataError(
                f"{type(self).__name__} read {len(images)} images and {len(labels)} labels: the "
                "files are empty or do not belong together; download them again"
            )
        if int(labels.min()) < 0 or int(labels.max()) >= self.num_classes:
            raise CorruptDataError(
                f"{type(self).__name__} read labels from {int(labels.min())} to "
                f"{int(labels.max())}, but has {self.num_classes} classes: download the files again"
            )
        return dataset


def check_image_size(image_size: int | None) -> int | None:
    """Return an image size, or None, if it is valid.

    Args:
        image_size: Side length in pixels, at least 1; None stands for the original size.

    Raises:
        InvalidArgumentError: If it is below 1.
    """
    if image_size is not None and image_size < 1:
        raise InvalidArgumentError(f"data.image_size must be at least 1 pixel, got {image_size}")
    return image_size
