"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images")."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from lit_compress.datamodules.images import ImageDataModule, PixelDataset, check_image_size
from lit_compress.datamodules.torchvision_data import open_dataset
from lit_compress.datamodules.transforms import Augment, Preprocess

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in 10 classes.

    50,000 images are for training and 10,000 for testing.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".

    Args:
        data_dir: Folder that contains, or will contain, ``cifar-10-batches-py``.
        batch_size: Number of images in a batch, at least 1.
        val_fraction: Share of the 50,000 training images to hold out for validation, in [0, 1).
        split: Hold out the first images (``index``, as in the paper) or random ones (``random``).
        flip: Whether to mirror training images left to right at random.
        crop: Largest random shift of training images, in pixels; 0 switches it off.
        image_size: Side length to resize to, in pixels; None keeps 32. AlexNet needs 63 or more.
        download: Whether to download missing files.
        seed: Random seed of the split; not used with ``split="index"``.
        num_workers: Number of loader processes; 0 loads in the main process.

    Attributes:
        preprocess: Turns raw pixels into network input, as the artefact's file does.
        augment: Changes training images at random; None switches it off.

    Raises:
        InvalidArgumentError: If an argument is out of its range.

    Example:
        >>> from lit_compress.datamodules import CIFAR10DataModule
        >>> data = CIFAR10DataModule(data_dir="data", batch_size=128, image_size=64)
        >>> data.num_classes
        10
    """

    classes = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )

    def __init__(
        self,
        data_dir: str = "data",
        batch_size: int = 64,
        val_fraction: float = 0.2,
        split: Literal["index", "random"] = "index",
        flip: bool = True,
        crop: int = 4,
        image_size: int | None = None,
        download: bool = True,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, val_fraction, split, seed, num_workers)
        self.data_dir = data_dir
        self.download = download
        mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
        self.preprocess = Preprocess(mean, std, image_size=check_image_size(image_size))
        self.augment = Augment(flip, crop)

    def prepare_data(self) -> None:
        """Download missing files; Lightning calls it in one process only.

        Raises:
            DataNotFoundError: If files are missing and cannot be downloaded.
            CorruptDataError: If a file cannot be read.
        """
        for train in (True, False):
            self._open(train, self.download)

    def read(self, train: bool) -> PixelDataset:
        """Return the 50,000 training or 10,000 test images.

        Args:
            train: Whether to return the training images.
        """
        dataset = self._open(train, download=False)
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        return PixelDataset(images, torch.tensor(dataset.targets))

    def _open(self, train: bool, download: bool) -> CIFAR10:
        from torchvision.datasets import CIFAR10

        folder = Path(self.data_dir) / CIFAR10.base_folder
        wanted = [folder / name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]
        return open_dataset(
            "CIFAR-10",
            self.data_dir,
            wanted,
            download,
            lambda fetch: CIFAR10(self.data_dir, train, download=fetch),
        )
