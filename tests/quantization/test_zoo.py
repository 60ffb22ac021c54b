"""Every classification network of torchvision becomes an int8 file that runs.

``LIT_COMPRESS_ZOO="resnet18 vit_b_16"`` takes some of them.
"""

import gc
import os
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.quantization import quantize, write_onnx

#: More memory than a common machine has.
TOO_LARGE = {"vit_h_14", "regnet_y_128gf", "vit_l_16", "vit_l_32"}
ALL = [n for n in torchvision.models.list_models(module=torchvision.models) if n not in TOO_LARGE]
NAMES = os.environ.get("LIT_COMPRESS_ZOO", "").split() or ALL
#: Networks that stay under 15 dB, by the start of their name, and why.
EXPLAINED: dict[str, str] = {}


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
    size = 224 if name.startswith(("vit", "maxvit")) else 96 if name == "inception_v3" else 64
    images = torch.randn(8, 3, size, size)
    with torch.no_grad():
        model.train()(images)
    return model.eval(), images


def quality(name: str, folder: Path) -> tuple[float, float]:
    """Return the SQNR of a network's file, and its bytes a weight."""
    model, images = build(name)
    write_onnx(quantize(model, [images], images), images, folder / "m.onnx")
    with torch.no_grad():
        expected = model(images)
    found = OnnxModel(folder / "m.onnx")(images)
    kept = sum(item.numel() for item in model.parameters())
    return sqnr_db(expected.numpy(), found), (folder / "m.onnx").stat().st_size / kept


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # some networks trace with warnings of their own
def test_every_torchvision_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {}
    for count, name in enumerate(NAMES, 1):
        try:
            decibels, size = quality(name, tmp_path)
            if decibels < 15 and not name.startswith(tuple(EXPLAINED)):
                wrong[name] = f"{decibels:.1f} dB"
        except Exception as error:
            decibels, size = float("nan"), float("nan")
            wrong[name] = f"{type(error).__name__}: {error}"[:200]
        gc.collect()
        with capsys.disabled():
            print(f"{count} of {len(NAMES)} {name}: {decibels:.1f} dB, {size:.2f} bytes a weight")
    with capsys.disabled():
        print(f"{len(NAMES) - len(wrong)} of {len(NAMES)} torchvision networks; not: {wrong}")
    assert not wrong
