"""The folder a fit leaves behind: model.onnx, the float weights, and card.json that says it all."""

from lit_compress.artifact.card import Card, Fidelity, Metric, Timing, TimingRatio, Variant
from lit_compress.artifact.read import load, read_card
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.artifact.write import check_target, folder_swap, sha256, write_card

__all__ = [
    "Card",
    "Fidelity",
    "Metric",
    "OnnxModel",
    "Timing",
    "TimingRatio",
    "Variant",
    "check_target",
    "folder_swap",
    "load",
    "read_card",
    "sha256",
    "write_card",
]
