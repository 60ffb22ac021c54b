"""The user's own pictures, with one folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from lit_compress.datamodules.images import ImageDataModule, PixelDataset, check_image_size
from lit_compress.datamodules.transforms import Augment, Preprocess
from lit_compress.errors import CorruptDataError, DataNotFoundError, InvalidArgumentError
from lit_compress.files.reading import reading

#: Endings of the files that are read, those that torchvision's own ImageFolder reads.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
#: What to do about a picture that cannot be read.
REMEDY = "fix or delete it"


class ImageFolderDataModule(ImageDataModule):
    """Your own pictures in ``data_dir/train/<class>/*.png``, and likewise ``val`` and ``test``.

    The folder names in ``train`` are the class names. All pictures must be squares of one size, or
    ``image_size`` says to which size each is scaled and cropped. They are kept in memory. ``val``
    is optional: if it does not exist, some of the training pictures are held out. Only testing
    needs ``test``.

    Args:
        data_dir: Folder that contains ``train``, and optionally ``val`` and ``test``.
        image_size: Side length in pixels, at least 1, of the squares to make of the pictures: each
            is scaled to cover the square, and cropped to its centre. None keeps the pictures as
            they are, and refuses those of mixed sizes.
        in_channels: 3 reads the pictures in colour, 1 in grey.
        batch_size: Number of images in a batch, at least 1.
        val_fraction: Share of the training pictures to hold out for validation if there is no
            ``val``, in [0, 1).
        split: Hold out random pictures (``random``), or the first ones by class and name
            (``index``), which are of few classes.
        flip: Whether to mirror training images left to right at random.
        crop: Largest random shift of training images, in pixels; 0 switches it off.
        mean: Mean of each channel, or one for all, of pixels scaled to [0, 1].
        std: Standard deviation of each channel, or one for all, of pixels scaled to [0, 1].
        seed: Random seed of the split; not used with ``split="index"``.
        num_workers: Number of loader processes; 0 loads in the main process.

    Attributes:
        preprocess: Turns raw pixels into network input, as the artefact's file does.
        augment: Changes training images at random; None switches it off.

    Raises:
        InvalidArgumentError: If an argument is out of its range.
    """

    def __init__(
        self,
        data_dir: str,
        image_size: int | None = None,
        in_channels: Literal[1, 3] = 3,
        batch_size: int = 64,
        val_fraction: float = 0.2,
        split: Literal["index", "random"] = "random",
        flip: bool = True,
        crop: int = 0,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, val_fraction, split, seed, num_workers)
        if len(mean) not in (1, in_channels) or len(std) not in (1, in_channels):
            raise InvalidArgumentError(
                f"data.mean and data.std need 1 or {in_channels} values, got {list(mean)} and "
                f"{list(std)}"
            )
        self.data_dir = data_dir
        self.image_size = check_image_size(image_size)
        self.in_channels = in_channels
        self.preprocess = Preprocess(mean, std)
        self.augment = Augment(flip, crop)

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]  # only the folder knows them
        """Class names by label: the names of the folders in ``train``, sorted."""
        folder = self._folder("train")
        return tuple(sorted(child.name for child in folder.iterdir() if child.is_dir()))

    def read(self, train: bool) -> PixelDataset:
        """Return the pictures of ``train`` or ``test``.

        Args:
            train: Whether to return the training pictures.

        Raises:
            DataNotFoundError: If the folder does not exist or has no pictures.
            CorruptDataError: If a picture cannot be read, or without ``image_size`` has another
                size than the first one in ``train``, or is no square.
        """
        return self._read("train" if train else "test")

    def read_val(self) -> PixelDataset | None:
        """Return the pictures of ``val``; None if there is no such folder."""
        return self._read("val") if (Path(self.data_dir) / "val").is_dir() else None

    def _folder(self, split: str) -> Path:
        folder = Path(self.data_dir) / split
        if not folder.is_dir():
            raise DataNotFoundError(
                f"ImageFolderDataModule needs the folder {folder.resolve()}, which does not exist: "
                f"put the pictures in {split}/<class>/*.png under --data.data_dir"
            )
        return folder

    def _side(self) -> int:
        """Return the width of the first picture in ``train``, in pixels."""
        from PIL import Image

        for path in _pictures(self._folder("train"), self.classes):
            with reading(path, CorruptDataError, REMEDY), Image.open(path) as file:
                return int(file.width)
        return 1  # there are none, which is said where they are read

    def _read(self, split: str) -> PixelDataset:
        from PIL import Image, ImageOps
        from torchvision.transforms.v2.functional import pil_to_tensor

        folder, mode = self._folder(split), "L" if self.in_channels == 1 else "RGB"
        images, labels = [], []
        side = self.image_size or self._side()
        for label, name in enumerate(self.classes):
            for path in _pictures(folder, (name,)):
                # A damaged picture fails as OSError, SyntaxError, struct.error or others.
                with reading(path, CorruptDataError, REMEDY), Image.open(path) as file:
                    if self.image_size is None:
                        _check_size(path, file.size, side)
                    square = ImageOps.fit(file.convert(mode), (side, side))
                images.append(pil_to_tensor(square))
                labels.append(label)
        if not images:
            raise DataNotFoundError(
                f"{folder} has no pictures: put them in {split}/<class>/*.png "
                f"({', '.join(ENDINGS)})"
            )
        empty = [name for label, name in enumerate(self.classes) if label not in set(labels)]
        if empty and split == "train":  # a class that cannot be learnt
            raise DataNotFoundError(
                f"the class {empty[0]} has no pictures: put some into {folder / empty[0]} "
                f"({', '.join(ENDINGS)}), or delete that folder"
            )
        return PixelDataset(torch.stack(images), torch.tensor(labels))


def _pictures(folder: Path, classes: Sequence[str]) -> list[Path]:
    """Return the pictures of some classes, by class and name."""
    files = [path for name in classes for path in sorted((folder / name).glob("*"))]
    return [path for path in files if path.suffix.lower() in ENDINGS]


def _check_size(path: Path, size: tuple[int, int], side: int) -> None:
    """Refuse a picture that is no square of the size of the others."""
    if size != (side, side):
        found = "no square" if size[0] != size[1] else f"not {side} x {side} as the first one"
        raise CorruptDataError(
            f"{path} has {size[0]} x {size[1]} pixels, {found}: give data.image_size, which scales "
            "and crops each picture to a square, or make all of one size"
        )
