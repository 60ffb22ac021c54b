"""The user's own steps, each run once on a copy: do they run, and what do they log."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lit_compress.attributes import replaced_attributes
from lit_compress.doctor.data import Split, shapes
from lit_compress.doctor.finding import Answer, error, fine
from lit_compress.evaluation.loaders import copied
from lit_compress.evaluation.run_view.copies import clone, clone_with
from lit_compress.evaluation.run_view.training import train
from lit_compress.evaluation.validate import Position, validate


@dataclass
class Steps:
    """Runs the steps of a module once, on copies.

    Attributes:
        trainer: The run at the start of its training.
        module: Its module.
        keys: The metrics that the steps logged.
        higher_is_better: By key, what the logged metric objects say.
    """

    trainer: Trainer
    module: LightningModule
    keys: set[str] = field(default_factory=set)
    higher_is_better: dict[str, bool] = field(default_factory=dict)

    def check_validation(self, split: Split) -> Answer:
        """Run a batch of validation."""
        if not split.loaders:
            return fine("there is no validation data")
        at, copy = Position(), clone(self.trainer, self.module)
        logged = validate(self.trainer, copy, split.loaders, 1, position=at)
        self.keys |= logged.keys()
        self.higher_is_better |= at.higher_is_better
        return fine(f"runs, and logs {', '.join(sorted(logged)) or 'nothing'}")

    def check_training(self, split: Split) -> Answer:
        """Run a batch of training: forward, backward and a step of the optimizer, on copies."""
        loaders = [copied(loader) for loader in split.loaders]
        if not loaders or None in loaders:
            return fine("not run: the training data is a stream that can be read once only")
        losses: list[float] = []
        logged = self._train(loaders, losses)
        self.keys |= logged.keys()
        bad = [loss for loss in losses if not torch.tensor(loss).isfinite()]
        if bad:
            remedy = "look for a logarithm or division by 0 in the loss, and at the scale of inputs"
            return error(f"the loss of the first training batch is {bad[0]}", remedy)
        text = f"runs; the loss of the first batch is {losses[0]:.4g}" if losses else "runs"
        return fine(f"{text}, and logs {', '.join(sorted(logged)) or 'nothing'}")

    def fails(self, split: Split, batch: Any) -> bool:
        """Tell whether the step of a split fails on a batch.

        Args:
            split: The split.
            batch: The batch.
        """
        try:
            if split.name.startswith("validation"):
                validate(self.trainer, clone(self.trainer, self.module), [[batch]], 1)
            else:
                self._train([[batch]], [])
        except Exception:  # that it fails is the answer
            return True
        return False

    def _train(self, loaders: list[Any], losses: list[float]) -> dict[str, Any]:
        copy, optimizers = clone_with(self.trainer, self.module, self.trainer.optimizers)
        step = copy.training_step

        @functools.wraps(step)
        def noted(*args: Any, **kwargs: Any) -> Any:
            outputs = step(*args, **kwargs)
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            if isinstance(loss, Tensor) and loss.numel() == 1:
                losses.append(float(loss.detach()))
            return outputs

        with replaced_attributes(copy, training_step=noted):
            return train(self.trainer, copy, optimizers, loaders)


def remedy(splits: Sequence[Split]) -> str:
    """Return what to do about a step that fails, with the shapes of its batch.

    Args:
        splits: The split that the step gets.
    """
    given = next((shapes(split.first[0]) for split in splits if split.first), "unknown")
    return f"make step, network and data fit each other; the step gets {given}"
