"""The scanned digits of scikit-learn: real images that need no download."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from lit_compress.datamodules.images import ImageDataModule, PixelDataset
from lit_compress.datamodules.transforms import Augment, Preprocess
from lit_compress.errors import DataNotFoundError

#: Number of test images, at the end of scikit-learn's 1,797.
TEST_IMAGES = 360


class DigitsDataModule(ImageDataModule):
    """1,797 scanned digits in 10 classes, grey, scaled from 8 x 8 to 32 x 32 pixels.

    The images are part of scikit-learn, so nothing is downloaded. The last 360 are for testing.

    Source: scikit-learn's ``load_digits``, the test set of UCI's "Optical Recognition of
    Handwritten Digits" (Alpaydin and Kaynak 1998).

    Args:
        batch_size: Number of images in a batch, at least 1.
        val_fraction: Share of the training images to hold out for validation, in [0, 1).
        split: Hold out the first images (``index``) or random ones (``random``).
        crop: Largest random shift of training images, in pixels of 32; 0 switches it off.
        seed: Random seed of the split; not used with ``split="index"``.
        num_workers: Number of loader processes; 0 loads in the main process.

    Attributes:
        preprocess: Turns raw pixels into network input, as the artefact's file does.
        augment: Changes training images at random; None switches it off.

    Raises:
        InvalidArgumentError: If an argument is out of its range.

    Example:
        >>> from lit_compress.datamodules import DigitsDataModule
        >>> data = DigitsDataModule(batch_size=32)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, images.dtype, labels.shape
        (torch.Size([32, 1, 32, 32]), torch.float32, torch.Size([32]))
    """

    classes = tuple("0123456789")

    def __init__(
        self,
        batch_size: int = 64,
        val_fraction: float = 0.2,
        split: Literal["index", "random"] = "index",
        crop: int = 2,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, val_fraction, split, seed, num_workers)
        self.preprocess = Preprocess([0.5], [0.5])
        self.augment = Augment(crop=crop)

    def read(self, train: bool) -> PixelDataset:
        """Return the training or the test digits.

        Args:
            train: Whether to return the training images.

        Raises:
            DataNotFoundError: If scikit-learn is not installed.
        """
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataNotFoundError(
                "DigitsDataModule needs scikit-learn, which contains the digits: "
                "pip install 'lit-compress[demo]'"
            ) from error
        digits = load_digits()
        small = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
        large = F.interpolate(small, size=(32, 32), mode="bilinear")
        images = large.round().to(torch.uint8)
        labels = torch.from_numpy(digits.target).long()
        part = slice(None, -TEST_IMAGES) if train else slice(-TEST_IMAGES, None)
        return PixelDataset(images[part], labels[part])
