"""Every classification network of torchvision becomes an int8 file that runs.

The weights are random, and many a deep network of random weights makes much of little: where the
file is under 15 dB, ONNX Runtime's own quantisation of the same network must not be better.
``LIT_COMPRESS_ZOO="resnet18 vit_b_16"`` takes some of them.
"""

import gc
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
NAMES = os.environ.get("LIT_COMPRESS_ZOO", "").split() or ALL
#: SQNR in dB below which there must be a reason, and how much better the other file may be: that of
#: one network (EfficientNet-B0) changes by 1 dB either way with the seed of its weights.
LEAST, MARGIN = 15, 2


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
def test_every_torchvision_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, low = {}, 0
    for count, name in enumerate(NAMES, 1):
        decibels = other = size = float("nan")
        try:
            decibels, other, size = quality(name, tmp_path)
            low += decibels < LEAST
            if decibels < LEAST and not decibels > other - MARGIN:
                wrong[name] = f"{decibels:.1f} dB"
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"[:200]
        gc.collect()
        beside = f" (ONNX Runtime's own: {other:.1f} dB)" if decibels < LEAST else ""
        with capsys.disabled():
            print(
                f"{count} of {len(NAMES)} {name}: {decibels:.1f} dB{beside}, "
                f"{size:.2f} bytes a weight"
            )
    with capsys.disabled():
        print(
            f"{len(NAMES) - len(wrong)} of {len(NAMES)} torchvision networks, {low} of them under "
            f"{LEAST} dB; not: {wrong}"
        )
    assert not wrong
