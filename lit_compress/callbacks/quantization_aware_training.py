"""Quantization-aware training: the last epochs run as the int8 file does, which is then written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import ref

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lit_compress.callbacks._budget.contract import FixesShapes, StepsBack
from lit_compress.callbacks._quantization.best_weights import FinalSince
from lit_compress.callbacks._quantization.fake_forward import FakeForward, Place
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.callbacks._quantization.span import Span
from lit_compress.callbacks._quantization.trainable import (
    calls_in_step,
    check_run,
    check_trainable,
    never_called,
    warn_of_rest,
)
from lit_compress.callbacks._quantization.trial import few_batches
from lit_compress.callbacks._run.requeue import requeue_between_batches
from lit_compress.callbacks._run.resuming import restoring
from lit_compress.callbacks._run.steps import run_around, run_plainly
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.errors import ExportError, InvalidArgumentError
from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.progress import track
from lit_compress.quantization.training.ranges import Ranges


class QuantizationAwareTraining(PostTrainingQuantization, FinalSince, FixesShapes, StepsBack):
    """Trains the last epochs as the int8 file computes, and writes that file at the end of the fit.

    From its first epoch on, the forward of the network runs as a graph that rounds weights and
    activations where the file does, with its scales and zero points; gradients pass through the
    rounding (Jacob et al. 2018, arXiv 1712.05877). Metrics that are logged from then on are those
    of this network. The LightningModule keeps its own weights: its optimizer, schedulers and
    checkpoints go on.

    The ranges of activations are found on calibration batches, again at the start of each epoch up
    to ``freeze``. Until then batch norms use the statistics of the batch in training, and from then
    on they are folded with their running statistics, as in the file. It begins after the last
    pruning step of the run.

    Args:
        first: Epoch from which to train so, counted from 0. Default: the second half of the epochs
            that follow the last pruning step.
        freeze: Epoch from which the ranges of activations and the statistics of batch norms stay as
            they are. Default: two thirds of the way from ``first`` to the end.
        first_step: Training step from which to train so, in the place of ``first``.
        freeze_step: Training step from which they stay, in the place of ``freeze``.
        may_fail: If the trial before the training finds that the network cannot be trained so,
            quantise it after the training, with a warning, and do not raise the error.
        **settings: Arguments of :class:`PostTrainingQuantization`, such as ``monitor`` and
            ``max_drop``.

    Example:
        >>> from lit_compress.callbacks import FilterPruning, QuantizationAwareTraining
        >>> callbacks = [FilterPruning(0.5), QuantizationAwareTraining(monitor="val_acc")]
    """

    def __init__(
        self,
        first: int | None = None,
        freeze: int | None = None,
        first_step: int | None = None,
        freeze_step: int | None = None,
        may_fail: bool = False,
        **settings: Any,
    ) -> None:
        if settings.get("rounding", "nearest") != "nearest":
            raise InvalidArgumentError(
                "rounding: learned changes weights after the training, and these are trained with "
                "their rounding: leave it out, or use PostTrainingQuantization"
            )
        super().__init__(**settings)
        self.span = Span(first, freeze, first_step, freeze_step)
        self.may_fail = may_fail
        self._span = self.span
        self._fake: FakeForward | None = None
        self._found_at, self._frozen, self._epoch_begun = 0, False, -1
        self._trained_module: ref[LightningModule] | None = None
        #: Whether what validation calls is one graph, and not the part of it that does the same.
        self._whole = False

    @property
    def active(self) -> bool:
        """Whether the network runs as its file does."""
        return self._fake is not None

    @property
    @override
    def final_since(self) -> int:
        return self._found_at

    @override
    def fixed_from(self, trainer: Trainer) -> int | None:
        if self._span.first is not None:
            return self._span.first
        return trainer.current_epoch if self._span.has_begun(trainer) else None

    @contextmanager
    def fake_quantized(self, pl_module: LightningModule) -> Iterator[None]:
        """Let a module that was trained so compute as its int8 file, until the end of the block.

        After the fit the module computes in float again.

        Args:
            pl_module: The module, or a copy of it.

        Raises:
            InvalidArgumentError: If no fit of this callback reached fake quantisation.
        """
        if self._fake is None:
            raise InvalidArgumentError(
                "fake_quantized needs a fit in which fake quantisation began: call it after the fit"
            )
        with self._fake.forwards(pl_module):
            yield

    @override
    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "trained": self._ranges is not None, **self._span.plain()}

    # --- fit -------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            requeue_between_batches(trainer)
            self._ranges, self._fake = None, None
            self._found_at, self._frozen, self._epoch_begun = 0, False, -1

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._span = self.span.resolve(trainer)
        super().on_train_start(trainer, pl_module)
        self._check(trainer, pl_module)
        run_around(
            trainer,
            self,
            partial(self._step, pl_module),
            ("training_step", "validation_step"),
            outermost=True,
        )
        if self._ranges is not None:  # of a checkpoint
            place = on_rank_zero(trainer, lambda: self._place(trainer, pl_module))
            with restoring(trainer.ckpt_path):
                self._attach(trainer, pl_module, self._ranges, place)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_begun = trainer.current_epoch
        if self._span.has_begun(trainer) and not self._frozen:
            self._begin(trainer, pl_module)

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0 and self._epoch_begun != trainer.current_epoch:
            self.on_train_epoch_start(trainer, pl_module)  # see PruningCallback
        freezes = self._span.is_frozen(trainer) and not self._frozen
        if self._span.has_begun(trainer) and (not self.active or freezes):
            self._begin(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run_plainly(trainer, self)
        if not self.active and self._span != Span():
            rank_zero_warn(
                "QuantizationAwareTraining: the run ended before fake quantisation began "
                f"({self._span}), so the network is quantised after the training"
            )

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        run_plainly(trainer, self)
        super().on_exception(trainer, pl_module, exception)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        run_plainly(trainer, self)
        super().teardown(trainer, pl_module, stage)

    @override
    def state_dict(self) -> dict[str, Any]:
        ranges = None if self._ranges is None else self._ranges.state()
        return {"ranges": ranges, "found_at": self._found_at, "frozen": self._frozen}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        ranges = state_dict["ranges"]
        self._ranges = None if ranges is None else Ranges.of_state(ranges)
        self._found_at, self._frozen = int(state_dict["found_at"]), bool(state_dict["frozen"])

    @override
    def is_trained_with_ranges(self, pl_module: LightningModule) -> bool:
        return self._trained_module is not None and self._trained_module() is pl_module

    @override
    def go_back(self, trainer: Trainer, pl_module: LightningModule, state: dict[str, Any]) -> None:
        self.load_state_dict(state)
        self._fake = None
        if self._ranges is not None:
            place = on_rank_zero(trainer, lambda: self._place(trainer, pl_module))
            self._attach(trainer, pl_module, self._ranges, place)

    # --- training --------------------------------------------------------------------------------

    def _step(
        self, pl_module: LightningModule, step: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if self._fake is None:
            return step(*args, **kwargs)
        with self._fake.forwards(pl_module):
            return step(*args, **kwargs)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the ranges on the network as it is, and run it with them."""
        if not self.active:
            rank_zero_info(
                "QuantizationAwareTraining: from here on the network computes as its int8 file "
                f"will (epoch {trainer.current_epoch}, step {trainer.global_step})"
            )
        self._ranges, place = on_rank_zero(
            trainer, lambda: self._found(trainer, pl_module), "it finds the ranges of activations"
        )
        self._found_at = trainer.current_epoch
        self._frozen = self._span.is_frozen(trainer)
        self._attach(trainer, pl_module, self._ranges, place)

    def _found(self, trainer: Trainer, pl_module: LightningModule) -> tuple[Ranges, Place]:
        with isolate_rng():
            copy = clone(trainer, pl_module)
            network = self._network(trainer, copy)
            return _ranges(trainer, copy, network, self.settings), Place.of(network)

    def _place(self, trainer: Trainer, pl_module: LightningModule) -> Place:
        """Find the network alone: its ranges are known."""
        with isolate_rng():
            one = replace(self.settings, calibration_batches=1)
            return Place.of(self._network(trainer, clone(trainer, pl_module), one))

    def _attach(
        self, trainer: Trainer, pl_module: LightningModule, ranges: Ranges, place: Place
    ) -> None:
        self._fake = FakeForward(clone(trainer, pl_module), place, ranges, self.settings)
        self._trained_module = ref(pl_module)
        self._fake.batched = not self._frozen

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out before the training whether the network can be trained so."""

        def tried() -> None:
            check_run(trainer, pl_module)
            with isolate_rng():
                self._try_out(trainer, clone(trainer, pl_module))

        try:
            on_rank_zero(trainer, tried, "it tries fake quantisation on a few batches")
        except (InvalidArgumentError, ExportError) as error:
            if not self.may_fail:
                raise
            self._span = Span()
            rank_zero_warn(f"the network is quantised after the training, since {error}")

    def _try_out(self, trainer: Trainer, copy: LightningModule) -> None:
        """Do once what fake quantisation does, on a few batches."""
        settings = replace(self.settings, calibration_batches=few_batches(self.settings))
        for whole in (False, True):  # training may call the parts of what validation calls
            self._whole = whole
            network = self._network(trainer, copy, settings)
            place = Place.of(network)
            fake = FakeForward(copy, place, _ranges(trainer, copy, network, settings), settings)
            if calls_in_step(trainer, fake):
                break
        else:
            raise never_called(copy, place)
        check_trainable(copy, place)
        fake.check_gradients(copy)
        warn_of_rest(copy, fake)

    @override
    def _network(
        self, trainer: Trainer, copy: LightningModule, settings: Settings | None = None
    ) -> ExportTarget:
        network = super()._network(trainer, copy, settings)
        return replace(network, inner=network.path) if self._whole else network


def _ranges(
    trainer: Trainer, copy: LightningModule, network: ExportTarget, settings: Settings
) -> Ranges:
    """Return the ranges of a network, found on its calibration batches."""
    from lit_compress.quantization.convert import Calibrated

    calibrated = Calibrated(
        network.captured(copy).eval(),
        settings.calibration_inputs(trainer, copy, network),
        network.inputs[0],
        calibration=settings.calibration,
        weight_range=settings.weight_range,
        names=network.signature.names,
        track=partial(track, trainer),
        correct=False,
    )
    return calibrated.ranges
