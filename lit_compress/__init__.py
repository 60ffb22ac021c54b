"""Prune and quantise Lightning models while they train, and measure what that gave.

Names are imported when they are first used, so that ``lit_compress.load`` needs neither torch nor
lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_compress.artifact.read import load
    from lit_compress.checkpoints.load import load_from_checkpoint, restore
    from lit_compress.pruning.channels.analysis import analyse
    from lit_compress.pruning.schedule import Schedule
    from lit_compress.trainer import scan

__version__ = "0.1.0"

_HOME = {
    "Schedule": "lit_compress.pruning.schedule",
    "analyse": "lit_compress.pruning.channels.analysis",
    "load": "lit_compress.artifact.read",
    "load_from_checkpoint": "lit_compress.checkpoints.load",
    "restore": "lit_compress.checkpoints.load",
    "scan": "lit_compress.trainer",
}

__all__ = [
    "Schedule",
    "__version__",
    "analyse",
    "load",
    "load_from_checkpoint",
    "restore",
    "scan",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'lit_compress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
