"""scikit-learn's scanned digits: real images that need no download."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from lit_compress.datamodules.images import ImageDataModule, PixelDataset
from lit_compress.datamodules.transforms import Augment, Preprocess
from lit_compress.errors import DataNotFoundError

TEST_IMAGES = 360


class DigitsDataModule(ImageDataModule):
    """1,797 real scanned digits (1 channel, 10 classes), scaled from 8 to 32 pixels; no network.

    The last 360 are the test set. Source: scikit-learn's ``load_digits`` (UCI optical digits).

    Args:
        batch_size: Images a batch.
        val_fraction: Share of the training images held out for validation, in [0, 1).
        split: Hold out the first images (``index``) or seeded random ones.
        crop: Shift training images by up to this many of their 32 pixels.
        seed: Seed of the random split.
        num_workers: Loader processes.
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
        """Return the digits, from scikit-learn's own files."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataNotFoundError(
                "DigitsDataModule needs scikit-learn, which carries the digits: "
                "pip install 'lit-compress[demo]'"
            ) from error
        digits = load_digits()
        small = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
        large = F.interpolate(small, size=(32, 32), mode="bilinear")
        images = large.round().to(torch.uint8)
        labels = torch.from_numpy(digits.target).long()
        part = slice(None, -TEST_IMAGES) if train else slice(-TEST_IMAGES, None)
        return PixelDataset(images[part], labels[part])
