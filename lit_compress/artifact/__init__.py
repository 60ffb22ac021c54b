"""The artefact: the folder that a run writes, with ``model.onnx``, float weights and ``card.json``.

- Use one: :func:`load`, :func:`read_card`, :class:`OnnxModel`.
- Write one: :func:`check_target`, :func:`folder_swap`, :func:`write_card`, :func:`write_replay`.
- The card's content: :class:`Card`, :class:`Variant`, :class:`Metric`, :class:`Timing`,
  :class:`Fidelity`.
"""

from lit_compress.artifact.card import Card
from lit_compress.artifact.fidelity import agreement, sqnr_db
from lit_compress.artifact.folder.card import read_card
from lit_compress.artifact.read import load
from lit_compress.artifact.replay import write_replay
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.artifact.variant import (
    Fidelity,
    LayerFidelity,
    Metric,
    OutputFidelity,
    Timing,
    TimingRatio,
    Variant,
)
from lit_compress.artifact.write import check_target, folder_swap, sha256, write_card

__all__ = [
    "Card",
    "Fidelity",
    "LayerFidelity",
    "Metric",
    "OnnxModel",
    "OutputFidelity",
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
