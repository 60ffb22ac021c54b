"""Transforms of whole batches of uint8 pixels; each image of a batch gets its own draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Preprocess(nn.Module):
    """Raw pixels to network input: pad, resize, normalise. Deterministic, and exported as it is.

    Args:
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel.
        pad: Black pixels added on each side.
        image_size: Side length to resize to (bilinear); None keeps the size.
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
        """Return the network input for pixels.

        Args:
            pixels: uint8, N x C x H x W.

        Returns:
            float32, N x C x S x S.
        """
        images = pixels.float()
        if self.pad:
            images = F.pad(images, (self.pad,) * 4)
        if self.image_size is not None and self.image_size != images.shape[-1]:
            images = F.interpolate(images, size=(self.image_size, self.image_size), mode="bilinear")
        return images * self.scale + self.shift

    def output_size(self, side: int) -> int:
        """Return the side length that an image of ``side`` pixels comes out with."""
        return self.image_size or side + 2 * self.pad


class Augment:
    """Random flips and shifted crops, for training batches.

    Args:
        flip: Mirror each image left to right, every second time.
        crop: Shift each image by up to this many pixels in each direction, filling with black.
    """

    def __init__(self, flip: bool = False, crop: int = 0) -> None:
        self.flip = flip
        self.crop = crop

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the batch, each image with its own draw of torch's global generator."""
        if self.flip:
            chosen = torch.rand(len(pixels), 1, 1, 1) < 0.5
            pixels = torch.where(chosen, pixels.flip(-1), pixels)
        if self.crop:
            pixels = shifted(
                pixels, torch.randint(0, 2 * self.crop + 1, (2, len(pixels))), self.crop
            )
        return pixels


def shifted(pixels: Tensor, offsets: Tensor, crop: int) -> Tensor:
    """Return each image cut out of itself, padded by ``crop``, at its own offsets (2 x N)."""
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (crop,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(pixels)), :, offsets[0], offsets[1]]
