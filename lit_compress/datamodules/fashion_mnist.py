"""FashionMNIST (Xiao et al. 2017, arXiv 1708.07747)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lit_compress.datamodules.images import ImageDataModule, PixelDataset, check_image_size
from lit_compress.datamodules.torchvision_data import open_dataset
from lit_compress.datamodules.transforms import Augment, Preprocess

if TYPE_CHECKING:
    from torchvision.datasets import FashionMNIST


class FashionMNISTDataModule(ImageDataModule):
    """FashionMNIST: 70,000 grey images of clothes in 10 classes, padded from 28 to 32 pixels.

    60,000 images are for training and 10,000 for testing.

    Source: Xiao et al. 2017, arXiv 1708.07747.

    Args:
        data_dir: Folder that contains, or will contain, ``FashionMNIST/raw``.
        batch_size: Number of images in a batch, at least 1.
        val_fraction: Share of the 60,000 training images to hold out for validation, in [0, 1).
        split: Hold out the first images (``index``, as in the paper) or random ones (``random``).
        flip: Whether to mirror training images left to right at random.
        crop: Largest random shift of training images, in pixels; 0 switches it off.
        pad: Black pixels to add on each side, at least 0: 2 makes 28 pixels 32.
        image_size: Side length to resize to after padding, in pixels; None keeps it. AlexNet needs
            63 or more.
        download: Whether to download missing files.
        seed: Random seed of the split; not used with ``split="index"``.
        num_workers: Number of loader processes; 0 loads in the main process.

    Attributes:
        preprocess: Turns raw pixels into network input, as the artefact's file does.
        augment: Changes training images at random; None switches it off.

    Raises:
        InvalidArgumentError: If an argument is out of its range.

    Example:
        >>> from lit_compress.datamodules import FashionMNISTDataModule
        >>> data = FashionMNISTDataModule(data_dir="data")
        >>> data.classes[0], data.num_classes
        ('T-shirt/top', 10)
    """

    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    def __init__(
        self,
        data_dir: str = "data",
        batch_size: int = 64,
        val_fraction: float = 0.2,
        split: Literal["index", "random"] = "index",
        flip: bool = True,
        crop: int = 0,
        pad: int = 2,
        image_size: int | None = None,
        download: bool = True,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, val_fraction, split, seed, num_workers)
        self.data_dir = data_dir
        self.download = download
        self.preprocess = Preprocess([0.2860], [0.3530], pad, check_image_size(image_size))
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
        """Return the 60,000 training or 10,000 test images.

        Args:
            train: Whether to return the training images.
        """
        dataset = self._open(train, download=False)
        return PixelDataset(dataset.data[:, None], dataset.targets.long())

    def _open(self, train: bool, download: bool) -> FashionMNIST:
        from torchvision.datasets import FashionMNIST

        raw = Path(self.data_dir) / "FashionMNIST" / "raw"
        # torchvision looks for all four files, whichever split it reads.
        wanted = [
            raw / f"{prefix}-{part}-ubyte"
            for prefix in ("train", "t10k")
            for part in ("images-idx3", "labels-idx1")
        ]
        return open_dataset(
            "FashionMNIST",
            self.data_dir,
            wanted,
            download,
            lambda fetch: FashionMNIST(self.data_dir, train, download=fetch),
        )
