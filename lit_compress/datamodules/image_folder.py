"""The user's own pictures, one folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from lit_compress.datamodules.images import ImageDataModule, PixelDataset
from lit_compress.datamodules.transforms import Augment, Preprocess
from lit_compress.errors import CorruptDataError, DataNotFoundError, InvalidArgumentError


class ImageFolderDataModule(ImageDataModule):
    """Your own pictures: ``data_dir/train/<class>/*.png``, and ``val/`` and ``test/`` likewise.

    Each picture is scaled to cover a square, and its centre kept, when it is read. Without ``val/``
    a share of the training pictures is held out.

    Args:
        data_dir: Folder with ``train``, and if wanted ``val`` and ``test``.
        image_size: Side length of the squares, in pixels.
        in_channels: 3 for colour, 1 for grey.
        batch_size: Images a batch.
        val_fraction: Share held out for validation where there is no ``val/``, in [0, 1).
        split: Hold out seeded random pictures, or the first by name (``index``).
        flip: Mirror training images at random.
        crop: Shift training images by up to this many pixels.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel.
        seed: Seed of the random split.
        num_workers: Loader processes.
    """

    def __init__(
        self,
        data_dir: str,
        image_size: int = 64,
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
        if image_size < 1:
            raise InvalidArgumentError(f"data.image_size must be at least 1, got {image_size}")
        if len(mean) not in (1, in_channels) or len(std) not in (1, in_channels):
            raise InvalidArgumentError(
                f"data.mean and data.std need 1 or {in_channels} values, got {list(mean)} and "
                f"{list(std)}"
            )
        self.data_dir = data_dir
        self.image_size = image_size
        self.in_channels = in_channels
        self.preprocess = Preprocess(mean, std)
        self.augment = Augment(flip, crop)

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the folders in ``train``, sorted."""
        folder = self._folder("train")
        return tuple(sorted(child.name for child in folder.iterdir() if child.is_dir()))

    def read(self, train: bool) -> PixelDataset:
        """Return the pictures of ``train`` or ``test``."""
        return self._read("train" if train else "test")

    def read_val(self) -> PixelDataset | None:
        """Return the pictures of ``val``, where there is one."""
        return self._read("val") if (Path(self.data_dir) / "val").is_dir() else None

    def _folder(self, split: str) -> Path:
        folder = Path(self.data_dir) / split
        if not folder.is_dir():
            raise DataNotFoundError(
                f"ImageFolderDataModule looked for {folder.resolve()}, which is not there: lay the "
                f"pictures out as {split}/<class>/*.png under --data.data_dir"
            )
        return folder

    def _read(self, split: str) -> PixelDataset:
        from PIL import Image, ImageOps
        from torchvision.datasets.folder import IMG_EXTENSIONS
        from torchvision.transforms.v2.functional import pil_to_tensor

        folder, mode = self._folder(split), "L" if self.in_channels == 1 else "RGB"
        images, labels = [], []
        for label, name in enumerate(self.classes):
            for path in sorted((folder / name).glob("*")):
                if path.suffix.lower() not in IMG_EXTENSIONS:
                    continue
                try:
                    with Image.open(path) as file:
                        square = ImageOps.fit(file.convert(mode), (self.image_size,) * 2)
                except (OSError, ValueError, Image.DecompressionBombError) as error:
                    raise CorruptDataError(
                        f"{path} cannot be read as a picture ({error}): mend or remove it"
                    ) from error
                images.append(pil_to_tensor(square))
                labels.append(label)
        if not images:
            raise DataNotFoundError(
                f"{folder} holds no pictures: lay them out as {split}/<class>/*.png "
                f"({', '.join(IMG_EXTENSIONS)})"
            )
        return PixelDataset(torch.stack(images), torch.tensor(labels))
