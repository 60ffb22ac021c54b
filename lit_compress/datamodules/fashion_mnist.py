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
    """70,000 images of clothes (1 channel, 28 pixels, 10 classes), padded to 32 pixels.

    Args:
        data_dir: Root that holds, or will hold, ``FashionMNIST/raw``.
        batch_size: Images a batch.
        val_fraction: Share of the 60,000 training images held out for validation, in [0, 1).
        split: Hold out the first images (``index``, as the paper) or seeded random ones.
        flip: Mirror training images at random.
        crop: Shift training images by up to this many pixels.
        pad: Black pixels added on each side: 2 makes 28 pixels 32.
        image_size: Side length to resize to after padding; None keeps it. AlexNet needs 63 or more.
        download: Fetch missing files, where there is a network.
        seed: Seed of the random split.
        num_workers: Loader processes.
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
        """Download what is missing, in one process."""
        for train in (True, False):
            self._open(train, self.download)

    def read(self, train: bool) -> PixelDataset:
        """Return the 60,000 training or 10,000 test images."""
        dataset = self._open(train, download=False)
        return PixelDataset(dataset.data[:, None], dataset.targets.long())

    def _open(self, train: bool, download: bool) -> FashionMNIST:
        from torchvision.datasets import FashionMNIST

        raw = Path(self.data_dir) / "FashionMNIST" / "raw"
        # torchvision wants all four files for either split.
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
