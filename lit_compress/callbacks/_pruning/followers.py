"""Finding the parts of a module that follow another: averages, momentum encoders, mean teachers.

They are found by what they do, on a copy: one batch is trained, from weights that were shifted a
little, and a follower has moved towards the part that it follows. A teacher that stays as it is
keeps all its channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from lit_compress.evaluation.loaders import copied, training_loaders
from lit_compress.evaluation.run_view.copies import clone_with
from lit_compress.evaluation.run_view.training import train
from lit_compress.pruning.channels.tracing.followers import alike

#: Largest part of a move that another part may leave unexplained.
REST = 0.1
#: Names of parts that follow another although not after each batch: every epoch, every n steps.
FOLLOWER = re.compile(r"(?i)(^|[._])(ema|avg|averaged?|momentum|target|shadow|slow)([._]|$)|ema_")


def find_followers(trainer: Trainer, module: LightningModule) -> dict[str, str]:
    """Return the parts of a module that follow others, with the names of those others.

    Args:
        trainer: The run in progress.
        module: The user's module.
    """
    candidates = alike(module, _held(trainer.optimizers))
    if not candidates:
        return {}
    tried = _tried(trainer, module)
    followers: dict[str, str] = {}
    for name, models in candidates:
        found = [m for m in models if tried is not None and _follows(*tried, name, m)]
        if not found and (_is_average(module, name) or FOLLOWER.search(name)):
            found = sorted(models, key=lambda model: not _equal(module, name, model))
        if found:
            followers[name] = found[0]
        elif any(_equal(module, name, model) for model in models):
            rank_zero_info(
                f"{name} is a copy of {models[0]} that does not follow it from step to step, such "
                "as a teacher: it keeps all its channels"
            )
    return followers


def _tried(
    trainer: Trainer, module: LightningModule
) -> tuple[LightningModule, LightningModule, LightningModule] | None:
    """Return copies of a module before a batch is trained, shifted, and after it.

    None if no batch can be trained.
    """
    loaders = [copied(loader) for loader in training_loaders(trainer)]
    if not loaders or None in loaders:
        return None
    copy, optimizers = clone_with(trainer, module, trainer.optimizers)
    before = clone_with(trainer, copy, None)[0]
    _shift(optimizers)
    shifted = clone_with(trainer, copy, None)[0]
    try:
        train(trainer, copy, optimizers, loaders)
    except Exception:  # the dry run says why
        return None
    return before, shifted, copy


def _shift(optimizers: Sequence[Optimizer]) -> None:
    """Change the trained parameters a little, so that what follows them moves."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.is_floating_point() and parameter.requires_grad:
                        noise = torch.randn(parameter.shape, generator=generator)
                        scale = 0.5 * parameter.abs().mean() + 1e-3
                        parameter.add_(noise.to(parameter) * scale)


def _follows(
    before: LightningModule,
    shifted: LightningModule,
    after: LightningModule,
    name: str,
    model: str,
) -> bool:
    """Tell whether a part has moved some of the way to another, as it was or as it is."""
    start = _weights(before, name)
    moved = _weights(after, name) - start
    for state in (shifted, after):
        way = _weights(state, model) - start
        length = float(way @ way)
        part = float(moved @ way) / length if length else 0.0
        if 0 < part <= 1 + REST and float((moved - part * way).norm()) <= REST * float(
            moved.norm()
        ):
            return True
    return False


def _weights(module: nn.Module, name: str) -> Tensor:
    parameters = module.get_submodule(name).parameters()
    return torch.cat([p.detach().flatten().double().cpu() for p in parameters])


def _equal(module: nn.Module, name: str, model: str) -> bool:
    return torch.equal(_weights(module, name), _weights(module, model))


def _is_average(module: nn.Module, name: str) -> bool:
    """Tell whether a part is in torch's AveragedModel."""
    owner, _, last = name.rpartition(".")
    return last == "module" and isinstance(module.get_submodule(owner), AveragedModel)


def _held(optimizers: Sequence[Optimizer]) -> set[int]:
    """Return the identities of the parameters that are trained; an optimizer may hold others."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return {id(p) for group in groups for p in group["params"] if p.requires_grad}
