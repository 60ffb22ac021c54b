"""Knowledge distillation: the network learns from the outputs of a teacher while it is pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from math import isfinite
from time import perf_counter
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from typing_extensions import override

from lit_compress.callbacks._distillation.calls import NetworkCall, followed
from lit_compress.callbacks._distillation.loss import CallLoss
from lit_compress.callbacks._distillation.teacher import Teacher
from lit_compress.callbacks._pruning.arguments import check_counts, one_of
from lit_compress.callbacks._pruning.base import (
    AddsPruning,
    BeforePruning,
    pruning_callbacks,
)
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.callbacks._run.resuming import name_checkpoint
from lit_compress.callbacks._run.steps import run_around, run_plainly
from lit_compress.callbacks._run.supported import check_run
from lit_compress.distillation import Kind
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.network import network_paths
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import callbacks_of_type

#: Training steps after which the cost of the teacher is printed.
TIMED = 20


class KnowledgeDistillation(Callback, BeforePruning):
    """Adds a loss that pulls the outputs of the network towards those of a teacher.

    Works on any LightningModule: its ``training_step`` stays as it is, and the loss is added to
    what it returns. The teacher is called with the inputs of the network, in eval mode and without
    gradients, so a step costs about a third more; what it costs is printed.

    Without ``teacher``, the teacher is the dense network just before the first pruning step. So
    give it a trained network (``init_from``, or ``schedule.first`` after some epochs). Its weights
    are in the checkpoints of the run.

    With manual optimization nothing can be added: add
    ``lit_compress.distillation_loss(self)`` to your loss.

    Args:
        teacher: Path of a checkpoint of the same module, or a module that takes the same inputs.
            Default: the network itself before it is pruned.
        temperature: Scores of classes are divided by it before the softmax; above 0.
        weight: Factor of the loss; at least 0.
        outputs: What outputs mean. ``classes``: divergence of the softened classes (Hinton et al.
            2015). ``labels``: cross-entropy of each logit. ``values``: squared error. ``auto``
            finds it from the labels of the first batch.
        features: Names of layers with a weight whose outputs are matched too (Romero et al. 2015),
            at the channels that pruning leaves.
        feature_weight: Factor of the loss of the features.
        first: Epoch from which to distil, counted from 0.
        ramp: Number of epochs over which the weights rise to their values, from then on.
        submodule: Name of the module that is called, if that is not the LightningModule's own
            forward.

    Example:
        >>> from lit_compress.callbacks import FilterPruning, KnowledgeDistillation
        >>> callbacks = [KnowledgeDistillation(temperature=4), FilterPruning(0.5)]
    """

    def __init__(
        self,
        teacher: str | nn.Module | None = None,
        temperature: float = 4.0,
        weight: float = 1.0,
        outputs: Kind | Literal["auto"] = "auto",
        features: Sequence[str] = (),
        feature_weight: float = 1.0,
        first: int = 0,
        ramp: int = 0,
        submodule: str | None = None,
    ) -> None:
        _check_numbers(temperature, weight=weight, feature_weight=feature_weight)
        one_of("outputs", outputs, ("auto", *get_args(Kind)))
        check_counts(first=(first, 0), ramp=(ramp, 0))
        if isinstance(features, str) or not isinstance(features, Sequence):
            raise InvalidArgumentError(f"features must be a list of layer names, got {features!r}")
        self.teacher = teacher
        self.temperature = temperature
        self.weight = weight
        self.outputs = outputs
        self.features = tuple(features)
        self.feature_weight = feature_weight
        self.first = first
        self.ramp = ramp
        self.submodule = submodule
        self._start_anew()

    def _start_anew(self) -> None:
        self._teacher: Teacher | None = None
        self._paths: list[str] = []
        self._call_loss = CallLoss(
            self.temperature, self.weight, self.outputs, self.features, self.feature_weight
        )
        self._calls: list[NetworkCall] = []
        self._batch: Any = None
        self._used = False
        self._seconds: list[tuple[float, float]] = []
        self._teaching = 0.0
        self._restored: dict[str, Tensor] | None = None
        self._blank: LightningModule | None = None

    # --- fit -------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_run(self, trainer, stage)
        if stage != "fit":
            return
        name_checkpoint(trainer)
        self._start_anew()
        self._paths = network_paths(pl_module, self.submodule)
        self._check_features(pl_module)
        if isinstance(self.teacher, str):
            self._teacher = Teacher.loaded(trainer, pl_module, self.teacher)
        elif isinstance(self.teacher, nn.Module):
            self._teacher = Teacher(deepcopy(self.teacher), is_copy=False)
        elif not pruning_callbacks(trainer) and not callbacks_of_type(trainer, AddsPruning):
            raise InvalidArgumentError(
                "KnowledgeDistillation without a teacher learns from the network before it is "
                "pruned, and nothing prunes here: give teacher, or add a pruning callback"
            )
        else:  # a checkpoint may be loaded next, and the module then has the shapes after pruning
            self._blank = clone(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._restored is not None and self._blank is not None:
            self._teacher = Teacher(self._blank, is_copy=True)
            self._teacher.load(self._restored)
        self._restored = self._blank = None
        self._attach(trainer, pl_module)

    @override
    def before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._teacher is None:
            self._teacher = Teacher.snapshot(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._detach(trainer)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._detach(trainer)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._detach(trainer)

    @override
    def state_dict(self) -> dict[str, Any]:
        kept = self.teacher is None and self._teacher is not None
        weights = self._teacher.weights() if kept and self._teacher is not None else None
        return {"teacher": weights, "kinds": [list(kind) for kind in self._call_loss.kinds]}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict["teacher"]
        self._call_loss.kinds = [(kind, int(axis)) for kind, axis in state_dict["kinds"]]

    # --- the step --------------------------------------------------------------------------------

    def _attach(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the strategy's training step add the loss; the user's module does not change."""

        def training_step(step: Callable[..., Any], batch: Any, *args: Any) -> Any:
            start = perf_counter()
            self._calls, self._batch, self._used = [], batch, False
            if not self._factor(trainer):
                return step(batch, *args)
            with followed(pl_module, self._paths, self.features, self._calls):
                result = step(batch, *args)
            if pl_module.automatic_optimization:
                result = self._added(trainer, pl_module, result)
            elif not self._used and self._calls:
                raise InvalidArgumentError(
                    f"{type(pl_module).__name__} optimizes manually, so KnowledgeDistillation "
                    "cannot add its loss: add lit_compress.distillation_loss(self) to "
                    "your loss in training_step"
                )
            self._calls, self._batch = [], None
            self._tell_cost(perf_counter() - start)
            return result

        run_around(trainer, self, training_step)

    def _detach(self, trainer: Trainer) -> None:
        run_plainly(trainer, self)

    def _factor(self, trainer: Trainer) -> float:
        """Return the share of the weights that is due in this epoch; 0 if there is no teacher."""
        epoch = trainer.current_epoch - self.first
        if self._teacher is None or epoch < 0:
            return 0.0
        return min(1.0, (epoch + 1) / (self.ramp + 1))

    def _added(self, trainer: Trainer, pl_module: LightningModule, result: Any) -> Any:
        """Return what the user's step returned, with the loss added to it."""
        if result is None:
            return None
        loss = self.loss(trainer, pl_module)
        if isinstance(result, Tensor):
            return result + loss.to(result.dtype)
        return {**result, "loss": result["loss"] + loss.to(result["loss"].dtype)}

    def loss(self, trainer: Trainer, pl_module: LightningModule) -> Tensor:
        """Return the loss for the calls of the network in the training step so far.

        Args:
            trainer: The run.
            pl_module: The user's module.

        Raises:
            InvalidArgumentError: If the step calls no network, or the teacher returns other shapes.
        """
        self._used = True
        factor = self._factor(trainer)
        if self._teacher is None or not factor:
            return torch.zeros((), device=pl_module.device)
        if not self._calls:
            raise InvalidArgumentError(
                f"training_step of {type(pl_module).__name__} calls neither its forward nor a "
                "child with most of its weights, so there is nothing to distil: name the network "
                "by submodule"
            )
        start = perf_counter()
        with trainer.precision_plugin.train_step_context(), self._teacher.on_device_of(pl_module):
            answers = [self._teacher.answers(call, self.features) for call in self._calls]
        losses = [
            self._call_loss.of(
                call, answer, self._batch, lambda layer: kept_channels(trainer, layer)
            )
            for call, answer in zip(self._calls, answers, strict=True)
        ]
        total = torch.stack(losses).mean() * factor
        self._teaching = perf_counter() - start
        pl_module.log("compress/distillation_loss", total.detach(), on_step=False, on_epoch=True)
        return total

    # --- checks and messages ---------------------------------------------------------------------

    def _check_features(self, pl_module: LightningModule) -> None:
        for layer in self.features:
            if layer not in dict(pl_module.named_modules()):
                raise InvalidArgumentError(
                    f"features: {type(pl_module).__name__} has no layer {layer!r}: give a name "
                    "from named_modules()"
                )
            if not hasattr(pl_module.get_submodule(layer), "weight"):
                raise InvalidArgumentError(
                    f"features: {layer} has no weight, so pruning does not say which of its "
                    "outputs are left: name the convolution, linear layer or norm before it"
                )
        if self.features and isinstance(self.teacher, nn.Module):
            names = dict(self.teacher.named_modules())
            missing = [layer for layer in self.features if layer not in names]
            if missing:
                raise InvalidArgumentError(
                    f"features: the teacher has no layer {missing[0]!r}: name layers that both "
                    "networks have, or leave features out"
                )

    def _tell_cost(self, seconds: float) -> None:
        """Print what the teacher costs, when some steps were timed."""
        if len(self._seconds) == TIMED:
            return
        self._seconds.append((self._teaching, seconds))
        if len(self._seconds) == TIMED:
            own, step = (sum(times) / TIMED for times in zip(*self._seconds, strict=True))
            rank_zero_info(
                f"KnowledgeDistillation: the teacher and its loss take {own * 1e3:.1f} of the "
                f"{step * 1e3:.1f} ms of a training step's forward ({own / step:.0%})"
            )


def distillation_loss(pl_module: LightningModule) -> Tensor:
    """Return the loss of the run's KnowledgeDistillation, for modules that optimize manually.

    Call it in ``training_step`` after the network was called, and add it to your loss.

    Args:
        pl_module: The module.

    Returns:
        The loss, with its weight; 0 without that callback, and before there is a teacher.

    Example:
        >>> from lightning.pytorch import LightningModule
        >>> from lit_compress import distillation_loss
        >>> class Net(LightningModule):
        ...     def training_step(self, batch, batch_idx):
        ...         loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        ...         self.manual_backward(loss + distillation_loss(self))
    """
    trainer = pl_module.trainer
    found = callbacks_of_type(trainer, KnowledgeDistillation)
    own = trainer.lightning_module is pl_module
    if not found or not own:  # a copy of the module, such as that of the dry run
        return torch.zeros((), device=pl_module.device)
    return torch.stack([callback.loss(trainer, pl_module) for callback in found]).sum()


def kept_channels(trainer: Trainer, layer: str) -> Tensor | None:
    """Return the indices of a layer's outputs that the pruning of a run has left.

    Args:
        trainer: The run.
        layer: Name of the layer.

    Returns:
        The indices; None if the layer has all.
    """
    for pruner in pruning_callbacks(trainer):
        kept = pruner.kept_outputs(layer) if isinstance(pruner, ChannelPruning) else None
        if kept is not None:
            return torch.tensor(kept)
    return None


def _check_numbers(temperature: float, **weights: float) -> None:
    for name, value, low in (
        ("temperature", temperature, 0.0),
        *((name, value, -1e-300) for name, value in weights.items()),
    ):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not isfinite(value) or value <= low:
            wanted = "above 0" if name == "temperature" else "of at least 0"
            raise InvalidArgumentError(f"{name} must be a number {wanted}, got {value!r}")
