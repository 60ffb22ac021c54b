from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import nn

from lit_compress.datamodules import DigitsDataModule
from lit_compress.evaluation.data_protocols import (
    HasAugment,
    HasClasses,
    HasImageShape,
    HasNumClasses,
    HasPixels,
    HasPreprocess,
)

ALL = [HasAugment, HasClasses, HasImageShape, HasNumClasses, HasPixels, HasPreprocess]


class Plain(LightningDataModule):
    pass


class Named(LightningDataModule):
    classes = ("cat", "dog")


class Undecided(LightningDataModule):
    augment = None


@pytest.mark.parametrize("offer", ALL)
def test_a_plain_datamodule_offers_nothing(offer: type) -> None:
    assert not isinstance(Plain(), offer)
    assert not isinstance(None, offer)


@pytest.mark.parametrize("offer", ALL)
def test_the_datamodules_of_the_package_offer_everything(offer: type) -> None:
    data = DigitsDataModule()
    data.setup("fit")

    assert isinstance(data, offer)


def test_an_offer_is_found_by_its_name_alone() -> None:
    assert isinstance(Named(), HasClasses)
    assert not isinstance(Named(), HasNumClasses)


def test_an_augmentation_of_none_is_an_offer() -> None:
    assert isinstance(Undecided(), HasAugment)


def test_the_offers_have_the_documented_types() -> None:
    data: Any = DigitsDataModule(batch_size=4)
    data.setup("test")
    pixels = next(iter(data.pixels("test")))[0]

    assert (pixels.dtype, pixels.shape) == (torch.uint8, (4, 1, 32, 32))
    assert isinstance(data.preprocess, nn.Module)
    assert data.preprocess(pixels).shape[1:] == data.image_shape
    assert data.num_classes == len(data.classes)
