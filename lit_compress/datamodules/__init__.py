"""LightningDataModules that keep images as uint8 in memory and transform whole batches.

All of them offer ``pixels``, ``preprocess``, ``classes``, ``num_classes``, ``image_shape`` and
``augment``, see :mod:`lit_compress.evaluation.data_protocols`.
"""

from lit_compress.datamodules.cifar10 import CIFAR10DataModule
from lit_compress.datamodules.digits import DigitsDataModule
from lit_compress.datamodules.fashion_mnist import FashionMNISTDataModule
from lit_compress.datamodules.image_folder import ImageFolderDataModule
from lit_compress.datamodules.images import ImageDataModule
from lit_compress.datamodules.transforms import Preprocess

__all__ = [
    "CIFAR10DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "Preprocess",
]
