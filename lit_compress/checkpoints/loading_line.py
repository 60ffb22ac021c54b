"""The line that loads what a run has written."""

from __future__ import annotations

import inspect
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_compress.checkpoints.hyperparameters import split

#: Objects that torch's reader for untrusted files makes.
READ = frozenset(
    {"torch.dtype", "torch.device", "torch.Size", "torch.Tensor", "set", "bytes", "complex"}
)


def artifact_line(module: LightningModule, path: Path) -> str:
    """Return how to run an artefact, and how to get its float module back.

    Args:
        module: The module of the artefact.
        path: The artefact folder.
    """
    given = _given(module, frozenset())
    name = type(module).__qualname__
    return (
        f"lit_compress.load({str(path)!r}) runs it, "
        f"lit_compress.restore({', '.join([repr(str(path)), name, *given])}) "
        "gives the float module back"
    )


def checkpoint_line(trainer: Trainer, module: LightningModule) -> str | None:
    """Return how to load the best checkpoint of a run, else its last; None if it kept none.

    Args:
        trainer: The run.
        module: The user's module.
    """
    for callback in trainer.checkpoint_callbacks:
        path = getattr(callback, "best_model_path", "") or getattr(callback, "last_model_path", "")
        if isinstance(callback, Checkpoint) and path:
            words = [type(module).__qualname__, repr(str(path)), *_given(module, READ)]
            return f"lit_compress.load_from_checkpoint({', '.join(words)})"
    return None


def _given(module: LightningModule, read: frozenset[str]) -> list[str]:
    """Return the arguments of the constructor that no file holds."""
    takes = inspect.signature(type(module).__init__).parameters
    plain, objects = split(module.hparams)
    saved = {*plain, *objects}
    if isinstance(module.hparams, dict) and not objects:
        saved.add(getattr(module, "_hparams_name", None) or "")
    missing = [name for name, kind in objects.items() if kind not in read and name in takes]
    for name, taken in list(takes.items())[1:]:
        fixed = taken.kind in (taken.VAR_POSITIONAL, taken.VAR_KEYWORD)
        if not fixed and taken.default is taken.empty and name not in saved:
            missing.append(name)
    return [f"{name}=..." for name in missing]
