"""Transforms of whole batches of uint8 pixels, with separate random numbers for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Preprocess(nn.Module):
    """Turns raw pixels into network input: pad, resize, scale to [0, 1], normalise.

    It has no random part, and can be part of an exported file.

    Args:
        mean: Mean of each channel, or one for all, of pixels scaled to [0, 1].
        std: Standard deviation of each channel, or one for all, of pixels scaled to [0, 1].
        pad: Black pixels to add on each side.
        image_size: Side length to resize to, bilinear, in pixels; None keeps the size.

    Example:
        >>> import torch
        >>> preprocess = Preprocess(mean=[0.5], std=[0.5], pad=2)
        >>> pixels = torch.full((8, 1, 28, 28), 255, dtype=torch.uint8)
        >>> images = preprocess(pixels)
        >>> images.shape, images.dtype, images.max()
        (torch.Size([8, 1, 32, 32]), torch.float32, tensor(1.))
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        pad: int = 0,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.pad = pad
        self.image_size = image_size
        average, deviation = torch.tensor(mean), torch.tensor(std)
        shape = (1, -1, 1, 1)
        self.register_buffer("scale", (1 / (255 * deviation)).view(shape))
        self.register_buffer("shift", (-average / deviation).view(shape))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the network input for a batch of pixels.

        Args:
            pixels: uint8, N x C x H x W, values 0 to 255.

        Returns:
            float32, N x C x S x S with S = ``image_size``; without it, H and W grow by ``2 * pad``.
        """
        images = pixels.float()
        if self.pad:
            images = F.pad(images, (self.pad,) * 4)
        if self.image_size is not None and self.image_size != images.shape[-1]:
            images = F.interpolate(images, size=(self.image_size, self.image_size), mode="bilinear")
        return images * self.scale + self.shift

    def undo(self, images: Tensor) -> tuple[Tensor, bool]:
        """Return the pixels of normalised images, and whether all of them were whole pixels.

        Only the normalisation is undone: not a padding, nor another size.

        Args:
            images: floating point, N x C x H x W.

        Returns:
            uint8, N x C x H x W; False if a value was not within 2 % of a whole pixel from 0 to
            255, so that it is rounded.
        """
        exact = (images.double() - self.shift.double()) / self.scale.double()
        pixels = exact.round().clamp(0, 255)
        whole = bool(((exact - pixels).abs() < 0.02).all())
        return pixels.to(torch.uint8), whole

    def normalization(self) -> tuple[list[float], list[float]]:
        """Return the means and standard deviations of the channels."""
        deviation = 1 / (255 * self.scale.double())
        average = -self.shift.double() * deviation
        mean, std = average.flatten().tolist(), deviation.flatten().tolist()
        # The buffers have the six digits of single precision.
        return [float(f"{m:.6g}") for m in mean], [float(f"{s:.6g}") for s in std]

    def output_size(self, side: int) -> int:
        """Return the side length of the network input for images of ``side`` pixels."""
        return self.image_size or side + 2 * self.pad


class Augment:
    """Random flips and shifts of training images.

    Args:
        flip: Whether to mirror each image left to right with probability 0.5.
        crop: Largest shift in each direction, in pixels; the border is filled with black.
    """

    def __init__(self, flip: bool = False, crop: int = 0) -> None:
        self.flip = flip
        self.crop = crop

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the changed batch, with random numbers from torch's global generator.

        Args:
            pixels: N x C x H x W, any type.
        """
        if self.flip:
            chosen = torch.rand(len(pixels), 1, 1, 1) < 0.5
            pixels = torch.where(chosen, pixels.flip(-1), pixels)
        if self.crop:
            pixels = shifted(
                pixels, torch.randint(0, 2 * self.crop + 1, (2, len(pixels))), self.crop
            )
        return pixels


def shifted(pixels: Tensor, offsets: Tensor, crop: int) -> Tensor:
    """Shift each image by its own offsets, and fill with black.

    Args:
        pixels: N x C x H x W.
        offsets: Whole numbers in [0, 2 * crop], 2 x N: vertical and horizontal place of the window
            in the padded image. ``crop`` leaves the image as it is.
        crop: Black pixels to pad each side with.

    Returns:
        N x C x H x W.

    Example:
        >>> import torch
        >>> image = torch.tensor([[[[1, 2], [3, 4]]]])
        >>> shifted(image, torch.tensor([[1], [2]]), crop=1)  # one pixel to the left
        tensor([[[[2, 0],
                  [4, 0]]]])
    """
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (crop,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(pixels)), :, offsets[0], offsets[1]]
