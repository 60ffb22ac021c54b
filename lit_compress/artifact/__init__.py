"""The folder a fit leaves behind: model.onnx, the float weights, and card.json that says it all."""

from lit_compress.artifact.card import (
    Card,
    Fidelity,
    LayerFidelity,
    Metric,
    Timing,
    TimingRatio,
    Variant,
)
from lit_compress.artifact.fidelity import agreement, sqnr_db
from lit_compress.artifact.read import load, read_card
from lit_compress.artifact.replay import write_replay
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.artifact.write import check_target, folder_swap, sha256, write_card

__all__ = [
    "Card",
    "Fidelity",
    "LayerFidelity",
    "Metric",
    "OnnxModel",
    "Timing",
    "TimingRatio",
    "Variant",
    "agreement",
    "check_target",
    "folder_swap",
    "load",
    "read_card",
    "sha256",
    "sqnr_db",
    "write_card",
    "write_replay",
]
