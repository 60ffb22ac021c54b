"""Every classification network of torchvision becomes an int8 file that runs.

The weights are random, and many a deep network of random weights makes much of little: where the
file is under 15 dB, ONNX Runtime's own quantisation of the same network must not be better.
``LIT_COMPRESS_ZOO="resnet18 vit_b_16"`` takes some of them, ``LIT_COMPRESS_ZOO=2/3`` the second
third.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.export.onnx import write_onnx
from lit_compress.quantization import quantize

#: More memory than a common machine has.
TOO_LARGE = {"vit_h_14", "regnet_y_128gf", "vit_l_16", "vit_l_32"}
ALL = [n for n in torchvision.models.list_models(module=torchvision.models) if n not in TOO_LARGE]
#: SQNR in dB below which there must be a reason, and how much better the other file may be: that of
#: one network (EfficientNet-B0) changes by 1 dB either way with the seed of its weights.
LEAST, MARGIN = 15, 2
#: Bytes of a file for each parameter; the smallest networks have 1.1.
MOST_BYTES = 1.2


def names(chosen: str) -> list[str]:
    """Return the networks of ``a b c`` or of a part ``1/2``, and all of them for no text."""
    part, _, parts = chosen.partition("/")
    return ALL[int(part) - 1 :: int(parts)] if parts else chosen.split() or ALL


def test_the_parts_are_all_networks() -> None:
    assert sorted(names("1/3") + names("2/3") + names("3/3")) == sorted(ALL) == sorted(names(""))
    assert names("resnet18 alexnet") == ["resnet18", "alexnet"]


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network with norms that fit their inputs, a head that is not zero, and images for it."""
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **options)
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, 0, 0.02)  # the head of a ViT starts as zero
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average, from the first batch on
    size = 224 if name.startswith(("vit", "maxvit")) else 299 if name == "inception_v3" else 64
    images = torch.randn(8, 3, size, size)
    with torch.no_grad():
        model.train()(images)
    return model.eval(), images


def quality(name: str, folder: Path) -> tuple[float, float, float]:
    """Return the SQNR of a network's file, of the other where that is low, and bytes a weight."""
    model, images = build(name)
    write_onnx(quantize(model, [images], images), images, folder / "m.onnx")
    with torch.no_grad():
        expected = model(images).numpy()
    found = sqnr_db(expected, OnnxModel(folder / "m.onnx")(images))
    kept = sum(item.numel() for item in model.parameters())
    other = float("nan")
    if found < LEAST:
        write_onnx(model, images, folder / "fp32.onnx")
        quantize_by_onnxruntime(folder, images)
        other = sqnr_db(expected, OnnxModel(folder / "static.onnx")(images))
    return found, other, (folder / "m.onnx").stat().st_size / kept


def quantize_by_onnxruntime(folder: Path, images: Tensor) -> None:
    """Quantise ``fp32.onnx`` as ONNX Runtime does, weights by channel."""

    class Reader(CalibrationDataReader):
        batches = iter([{"input": images.numpy()}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    quant_pre_process(folder / "fp32.onnx", folder / "ready.onnx")
    quantize_static(
        folder / "ready.onnx",
        folder / "static.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # some networks trace with warnings of their own
@pytest.mark.parametrize("name", names(os.environ.get("LIT_COMPRESS_ZOO", "")))
def test_a_torchvision_network(name: str, tmp_path: Path) -> None:
    decibels, other, size = quality(name, tmp_path)
    assert decibels >= LEAST or decibels > other - MARGIN
    assert size < MOST_BYTES
