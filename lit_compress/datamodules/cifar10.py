"""CIFAR-10 (Krizhevsky 2009)."""

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
    """60,000 photographs (3 channels, 32 pixels, 10 classes).

    Args:
        data_dir: Root that holds, or will hold, ``cifar-10-batches-py``.
        batch_size: Images a batch.
        val_fraction: Share of the 50,000 training images held out for validation, in [0, 1).
        split: Hold out the first images (``index``, as the paper) or seeded random ones.
        flip: Mirror training images at random.
        crop: Shift training images by up to this many pixels.
        image_size: Side length to resize to; None keeps 32. AlexNet needs 63 or more.
        download: Fetch missing files, where there is a network.
        seed: Seed of the random split.
        num_workers: Loader processes.
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
        """Download what is missing, in one process."""
        for train in (True, False):
            self._open(train, self.download)

    def read(self, train: bool) -> PixelDataset:
        """Return the 50,000 training or 10,000 test images."""
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
