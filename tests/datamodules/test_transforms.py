"""Whole batches against loops over single images and pixels."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_compress.datamodules import Preprocess
from lit_compress.datamodules.transforms import Augment, shifted


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Linear along each axis, pixels taken at their centres."""
    for axis in (2, 3):
        old = np.arange(images.shape[axis])
        at = (np.arange(size) + 0.5) * len(old) / size - 0.5
        lines = np.moveaxis(images, axis, -1).reshape(-1, len(old))
        moved = np.stack([np.interp(at, old, line) for line in lines])
        shape = np.moveaxis(images, axis, -1).shape[:-1]
        images = np.moveaxis(moved.reshape(*shape, size), -1, axis)
    return images


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_preprocess_is_what_is_computed_by_hand(data: st.DataObject) -> None:
    channels, side = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 6))
    mean = data.draw(st.lists(st.floats(0, 1), min_size=channels, max_size=channels))
    std = data.draw(st.lists(st.floats(0.1, 1), min_size=channels, max_size=channels))
    pad, size = data.draw(st.integers(0, 2)), data.draw(st.none() | st.integers(1, 12))
    pixels = noise(2, channels, side, side, seed=data.draw(st.integers(0, 999)))

    expected = np.pad(pixels.numpy().astype(float), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    expected = expected if size is None else resized(expected, size)
    for channel in range(channels):
        expected[:, channel] = (expected[:, channel] / 255 - mean[channel]) / std[channel]

    preprocess = Preprocess(mean, std, pad, size)
    images = preprocess(pixels)
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-4)
    assert preprocess.output_size(side) == images.shape[-1] == images.shape[-2]
    assert torch.equal(images, preprocess(pixels))


def test_extreme_pixels() -> None:
    pixels = torch.tensor([[[[0, 255]]]], dtype=torch.uint8).expand(1, 1, 2, 2)
    images = Preprocess([0.25], [0.5])(pixels)
    assert images[0, 0, 0].tolist() == pytest.approx([-0.5, 1.5])


def test_one_mean_serves_all_channels() -> None:
    pixels = noise(2, 3, 4, 4)
    assert torch.equal(Preprocess([0.3], [0.2])(pixels), Preprocess([0.3] * 3, [0.2] * 3)(pixels))


def test_preprocess_has_nothing_to_train() -> None:
    preprocess = Preprocess([0.3], [0.2])
    assert not list(preprocess.parameters())
    assert set(preprocess.state_dict()) == {"scale", "shift"}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_shifted_is_a_crop_of_each_image(data: st.DataObject) -> None:
    count, channels = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    crop = data.draw(st.integers(0, 3))
    offset = st.lists(st.integers(0, 2 * crop), min_size=count, max_size=count)
    rows, columns = data.draw(offset), data.draw(offset)
    pixels = noise(count, channels, height, width)

    moved = shifted(pixels, torch.tensor([rows, columns]), crop)

    assert moved.dtype == torch.uint8
    assert moved.shape == pixels.shape
    padded = np.pad(pixels.numpy(), ((0, 0), (0, 0), (crop, crop), (crop, crop)))
    for index, (row, column) in enumerate(zip(rows, columns, strict=True)):
        window = padded[index, :, row : row + height, column : column + width]
        np.testing.assert_array_equal(moved[index].numpy(), window)


def candidates(image: Tensor, flip: bool, crop: int) -> dict[bytes, tuple[bool, int, int]]:
    found = {}
    for mirrored in (False, True) if flip else (False,):
        one = image.numpy()[..., ::-1] if mirrored else image.numpy()
        padded = np.pad(one, ((0, 0), (crop, crop), (crop, crop)))
        for row, column in product(range(2 * crop + 1), repeat=2):
            window = padded[:, row : row + one.shape[1], column : column + one.shape[2]]
            found[window.tobytes()] = (mirrored, row, column)
    return found


@pytest.mark.parametrize(("flip", "crop"), [(True, 0), (False, 1), (True, 2), (False, 0)])
def test_augment_draws_for_each_image_and_all_that_is_allowed(flip: bool, crop: int) -> None:
    pixels = noise(1, 2, 5, 5).expand(2000, 2, 5, 5).contiguous()
    before = pixels.clone()
    torch.manual_seed(0)
    augmented = Augment(flip, crop)(pixels)
    assert torch.equal(pixels, before)
    assert augmented.dtype == torch.uint8
    allowed = candidates(pixels[0], flip, crop)
    drawn = [allowed[image.numpy().tobytes()] for image in augmented]
    counts = {draw: drawn.count(draw) for draw in allowed.values()}
    assert len(counts) == (1 + flip) * (2 * crop + 1) ** 2
    mean = len(drawn) / len(counts)
    assert all(abs(count - mean) < 6 * mean**0.5 for count in counts.values())


def test_augment_follows_the_global_seed() -> None:
    pixels, augment = noise(32, 1, 6, 6), Augment(True, 2)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return augment(pixels)

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_a_normalisation_is_undone_and_says_if_pixels_were_whole() -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    preprocess = Preprocess(mean, std)
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    undone, whole = preprocess.undo(preprocess(pixels))
    assert torch.equal(undone, pixels)
    assert whole
    assert preprocess.normalization() == (mean, std)
    undone, whole = preprocess.undo(preprocess(pixels) + 0.01)  # 0.6 of a pixel
    assert not whole
    assert not preprocess.undo(torch.full((1, 3, 2, 2), 9.0))[1]  # above 255
