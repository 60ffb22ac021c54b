"""Runs and networks that can be trained with fake quantisation; others are refused by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.dropout import _DropoutNd

from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.callbacks._quantization.fake_forward import FakeForward, Place
from lit_compress.callbacks.knowledge_distillation import KnowledgeDistillation
from lit_compress.errors import InvalidArgumentError, LitCompressError
from lit_compress.evaluation.loaders import copied, training_loaders
from lit_compress.evaluation.run_view.copies import clone_with
from lit_compress.evaluation.run_view.training import train
from lit_compress.evaluation.trainer_access import callbacks_of_type
from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import as_tuple

#: Attributes of a module that hold functions which its calls run.
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
WAY_OUT = "or use PostTrainingQuantization"


def check_run(trainer: Trainer, pl_module: LightningModule) -> None:
    """Check that nothing else in a run needs what a graph does not do.

    Args:
        trainer: The run.
        pl_module: The user's module.

    Raises:
        InvalidArgumentError: If weights are not float32, channels are removed at the end of the
            fit, or features are distilled.
    """
    for name, parameter in pl_module.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise InvalidArgumentError(
                f"{name} is {parameter.dtype}, and fake quantisation rounds float32 weights: set "
                f"the Trainer's precision to 32-true or to a mixed one, {WAY_OUT}"
            )
    for pruner in pruning_callbacks(trainer):
        if isinstance(pruner, ChannelPruning) and pruner.shrink == "end":
            raise InvalidArgumentError(
                f"{type(pruner).__name__} removes channels at the end of the fit (shrink: end), "
                "after the network was trained with the ranges of its file: set shrink to every, "
                f"{WAY_OUT}"
            )
    for teacher in callbacks_of_type(trainer, KnowledgeDistillation):
        if teacher.features:
            raise InvalidArgumentError(
                "KnowledgeDistillation matches the outputs of layers (features), which a network "
                f"with fake quantisation does not give: remove features, {WAY_OUT}"
            )


def check_trainable(copy: LightningModule, place: Place) -> None:
    """Check that a network runs no functions that its graph would leave out.

    Args:
        copy: A copy of the user's module, on the CPU and in single precision.
        place: Where the network is.

    Raises:
        InvalidArgumentError: If a part of it has hooks.
    """
    prefix = f"{place.inner}." if place.inner else ""
    for name, part in copy.get_submodule(place.inner).named_modules():
        if name and any(getattr(part, hooks) for hooks in HOOKS):
            raise InvalidArgumentError(
                f"{prefix}{name} has hooks, which are not called while the network is trained with "
                f"fake quantisation, since it runs as one graph: remove them before, {WAY_OUT}"
            )


def warn_of_rest(copy: LightningModule, fake: FakeForward) -> None:
    """Warn if something random in the network rests while it runs as a graph.

    Args:
        copy: A copy of the user's module.
        fake: Its forward as a graph.
    """
    part = copy.train().get_submodule(fake.place.inner)
    droppers = fake.droppers(copy)
    if not all(isinstance(one, _DropoutNd) for one in droppers):
        copy.eval()
        return  # a forward calls functional.dropout: what else is random cannot be told from it
    quiet = {id(one) for one in droppers}
    for child in part.modules():
        if getattr(child, "running_mean", None) is not None or id(child) in quiet:
            child.training = False
    network = fake.place.target().captured(copy)
    inputs = as_tuple(fake.place.example)
    if _differs(lambda: as_tensors(network(*(one.clone() for one in inputs)))):
        names = [type(one).__name__ for one in part.modules() if one.training and _is_random(one)]
        rank_zero_warn(
            f"the forward is random in training ({', '.join(dict.fromkeys(names)) or 'by itself'}) "
            "in a way that its graph is not while it runs with fake quantisation: this rests then"
        )
    copy.eval()


def calls_in_step(trainer: Trainer, fake: FakeForward) -> bool:
    """Run one training step of a copy with fake quantisation; tell whether it calls the network.

    Args:
        trainer: The run.
        fake: The forward of its network.

    Raises:
        InvalidArgumentError: If the step fails.
    """
    copy, optimizers = clone_with(trainer, trainer.lightning_module, trainer.optimizers)
    loaders = [loader for one in training_loaders(trainer) if (loader := copied(one)) is not None]
    if not loaders or not trainer.optimizers:
        return True  # a step cannot be tried without a loss to the run
    calls = fake.calls
    try:
        with fake.forwards(copy):
            train(trainer, copy, optimizers, loaders)
    except LitCompressError:
        raise
    except Exception as error:
        raise InvalidArgumentError(
            f"training_step of {type(copy).__name__} fails when the network runs as its int8 file "
            f"does, as in validation ({type(error).__name__}: {error}): let the forward return the "
            f"same in training, {WAY_OUT}"
        ) from error
    return fake.calls > calls


def never_called(module: LightningModule, place: Place) -> InvalidArgumentError:
    """Return the error of a run whose training steps do not call the network.

    Args:
        module: The user's module.
        place: Where the network is.
    """
    return InvalidArgumentError(
        f"training_step of {type(module).__name__} does not call {place.path or 'its forward'}, "
        "which validation_step calls, so it would train without fake quantisation: call the same "
        f"part in both, without torch.compile, name it by submodule, {WAY_OUT}"
    )


def _differs(run: Callable[[], tuple[Tensor, ...]]) -> bool:
    """Tell whether two runs with different random numbers differ."""
    found = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(run())
    return not all(map(torch.equal, *found))


def _is_random(part: Module) -> bool:
    return "drop" in type(part).__name__.lower() or "stochastic" in type(part).__name__.lower()
