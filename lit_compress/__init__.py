"""Prune and quantise Lightning models while they train, and measure the result.

=========================  ======================================================================
``Schedule``               When to prune, and how much at each pruning step.
``scan``                   Find how much of each layer can be pruned before the metric drops.
``analyse``                Find the channels of a network that can be removed together.
``load``                   Open the int8 ONNX file of an artefact; needs neither torch nor
                           lightning.
``from_pretrained``        Open an artefact by its folder, or by its name on the Hugging Face Hub.
``load_from_checkpoint``   Build a module from the checkpoint of a pruned network.
``distillation_loss``      Add the loss of a teacher, in a module that optimizes manually.
``pack``                   Write an artefact again in less space, with packed zeros.
``save_pretrained``        Write an artefact as a folder to upload to the Hugging Face Hub.
``restore``                Build the pruned float module of an artefact, to train it further.
=========================  ======================================================================

The callbacks are in :mod:`lit_compress.callbacks`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_compress.artifact.read import load
    from lit_compress.callbacks.knowledge_distillation import distillation_loss
    from lit_compress.checkpoints.load import load_from_checkpoint, restore
    from lit_compress.hub import from_pretrained, save_pretrained
    from lit_compress.packed.folder import pack
    from lit_compress.pruning.channels.analysis import analyse
    from lit_compress.pruning.schedule import Schedule
    from lit_compress.trainer import scan

__version__ = "0.1.0"

#: Module of each public name. A name is imported on first use: ``lit_compress.load`` must not need
#: torch or lightning.
_HOME = {
    "Schedule": "lit_compress.pruning.schedule",
    "analyse": "lit_compress.pruning.channels.analysis",
    "distillation_loss": "lit_compress.callbacks.knowledge_distillation",
    "from_pretrained": "lit_compress.hub",
    "load": "lit_compress.artifact.read",
    "load_from_checkpoint": "lit_compress.checkpoints.load",
    "pack": "lit_compress.packed.folder",
    "restore": "lit_compress.checkpoints.load",
    "save_pretrained": "lit_compress.hub",
    "scan": "lit_compress.trainer",
}

__all__ = [
    "Schedule",
    "__version__",
    "analyse",
    "distillation_loss",
    "from_pretrained",
    "load",
    "load_from_checkpoint",
    "pack",
    "restore",
    "save_pretrained",
    "scan",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'lit_compress' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, also those that are not imported yet."""
    return __all__
