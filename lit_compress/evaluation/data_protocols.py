"""What a datamodule may offer on top of Lightning's hooks, each as a small protocol.

None of it is required: code that can use an offer looks for it with ``isinstance``. The
datamodules of this package offer all of it, see :mod:`lit_compress.datamodules`.

Annotate a datamodule that may be None as ``object`` before the ``isinstance``: mypy 2.4 believes
that no optional object can have a protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn
from torch.utils.data import DataLoader

#: Name of a part of the data.
Split = Literal["train", "val", "test"]


@runtime_checkable
class HasPixels(Protocol):
    """Offers the images before preprocessing, for a file that does the preprocessing itself."""

    def pixels(self, split: Split) -> DataLoader[Any]:
        """Return a loader of a split, whose batches start with N x C x H x W uint8 pixels."""
        ...


@runtime_checkable
class HasPreprocess(Protocol):
    """Offers the preprocessing, which an exported file can then contain."""

    @property
    def preprocess(self) -> nn.Module:
        """The module that turns raw pixels (N x C x H x W, uint8) into network input (float32)."""
        ...


@runtime_checkable
class HasClasses(Protocol):
    """Offers the names of the classes."""

    @property
    def classes(self) -> Sequence[str]:
        """The names, in the order of the labels."""
        ...


@runtime_checkable
class HasNumClasses(Protocol):
    """Offers the number of classes."""

    @property
    def num_classes(self) -> int | None:
        """How many classes the labels come from; None if unknown."""
        ...


@runtime_checkable
class HasImageShape(Protocol):
    """Offers the shape of an image."""

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the network's input after ``setup``; None if unknown."""
        ...


@runtime_checkable
class HasAugment(Protocol):
    """Offers an augmentation that can be switched off: ``train_dataloader`` reads ``augment``."""

    #: Changes a batch of training images at random; None means no augmentation.
    augment: Any
