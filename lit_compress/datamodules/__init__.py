"""LightningDataModules that keep uint8 pixels in memory and transform whole batches."""

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
