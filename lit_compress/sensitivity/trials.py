"""Measure a network with some of its tensors changed, run only from the first changed one."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_compress.errors import ReplayError, ScanError
from lit_compress.evaluation.run_view.copies import attached, clone, in_run
from lit_compress.evaluation.run_view.trainer import TrainerView
from lit_compress.evaluation.validate import validate
from lit_compress.pruning.channels.surgery import replaced
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.sensitivity.calls.replay import Recording, record, replay
from lit_compress.sensitivity.calls.structure import Run, Structure, stored_bytes
from lit_compress.sensitivity.calls.watch import structure_of
from lit_compress.sensitivity.logged import LoggedMetrics, plain_hooks, step
from lit_compress.sensitivity.sample import Sample

#: The metrics that validation logs, by key.
Scores = dict[str, float]
#: Largest size of all recordings, in bytes. Larger ones are made for one layer at a time.
MEMORY = 2 << 30


class TrialRunner:
    """Measures a copy of a module on a sample, with the metrics of its own validation.

    The part of the network before the first changed tensor runs once, and its results are recorded.
    A trial runs the rest. If the torch calls of the module differ each time, a trial runs the whole
    network. If its validation needs more than the validation_step, a trial is a whole validation.
    Both are logged with the reason.

    Args:
        trainer: The run in progress.
        module: The user's module; a copy of it is used.
        sample: The data to measure on.
        tensors: For each target, the names of the tensors that change together.
        cached: Whether to record results; if not, each trial runs the whole network.

    Attributes:
        baseline: The metrics of the unchanged network.
        whole: Why each trial is a whole validation; empty if it is not.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        sample: Sample,
        tensors: Iterable[Sequence[str]],
        cached: bool = True,
    ) -> None:
        self._trainer = trainer
        self._copy = clone(trainer, module)
        self._sample = sample
        self._structure: Structure | None = None
        self._cuts: dict[frozenset[str], int] = {}
        self._recordings: list[Recording] = []
        self._recorded: tuple[int, ...] = ()
        self._checked: dict[int, bool] = {}
        self._reference: Scores | None = None
        self._reported: set[int] = set()
        self._buffers = _saved_buffers(self._copy)
        self.baseline = self._validate({})
        self.whole = self._why_whole()
        if self.whole:
            rank_zero_info(f"scan: each trial is a whole validation, because {self.whole}")
        elif cached:
            self._prepare([frozenset(names) for names in tensors])

    def scores(self, values: Mapping[str, Tensor]) -> Scores:
        """Return the metrics that validation logs with some tensors changed.

        Args:
            values: The changed tensors by name, in the shapes of the originals.
        """
        if self.whole:
            return self._validate(values)
        cut = self._cut(frozenset(values))
        try:
            return self._run_from(cut, values)
        except ReplayError as error:
            if not cut:
                raise
            if cut not in self._reported:
                self._reported.add(cut)
                rank_zero_info(f"scan: trials of {min(values)} run the whole network if {error}")
            return self._run_from(0, values)

    def _run_from(
        self, cut: int, values: Mapping[str, Tensor], batches: int | None = None
    ) -> Scores:
        """Return the metrics that validation_step alone logs, in a run from one of its calls.

        Args:
            cut: Number of the call; 0 runs the whole network.
            values: The changed tensors by name.
            batches: Number of batches to run; None runs all.
        """
        tally = LoggedMetrics(self._copy)
        with self._alone(), replaced(self._copy, values):
            for index in range(len(self._sample))[:batches]:
                self._run_batch(index, tally, cut)
            return tally.scores()

    def _why_whole(self) -> str:
        """Return why each trial must be a whole validation; empty if validation_step is enough.

        If it is enough, ``baseline`` becomes the metrics of validation_step alone.
        """
        if not plain_hooks(self._copy):
            return "the module overrides other validation hooks than validation_step"
        try:
            found = self._run_from(0, {})
        except ScanError as error:
            return str(error)
        except Exception as error:  # it may need any part of a Trainer's loops
            return f"validation_step does not run by itself ({type(error).__name__}: {error})"
        for name, value in self.baseline.items():
            if not _near(value, found.get(name)):
                return f"validation_step on its own logs another {name}"
        self.baseline = found
        return ""

    def _prepare(self, targets: list[frozenset[str]]) -> None:
        """Find the call from which each target must be run."""
        with self._alone():
            structure = structure_of(self._run(0, LoggedMetrics(self._copy)))
        own = named_tensors(self._copy)
        self._structure = structure
        self._cuts = {names: structure.cut(own[name] for name in names) for names in targets}

    def _cut(self, names: frozenset[str]) -> int:
        """Return the call from which to run when some tensors change, and record the calls before.

        Returns:
            The number of the call; 0 if the whole network must be run.
        """
        cut = self._cuts.get(names, 0)
        if not cut or self._structure is None:
            return 0
        every = tuple(sorted({cut for cut in self._cuts.values() if cut}))
        if cut not in self._recorded and not self._record(every) and not self._record((cut,)):
            return 0
        if cut not in self._checked:
            self._checked[cut] = self._is_exact(cut)
            if not self._checked[cut]:
                rank_zero_info(
                    f"scan: trials of {min(names)} run the whole network, because a run from its "
                    "first call logs other metrics"
                )
        return cut if self._checked[cut] else 0

    def _record(self, cuts: tuple[int, ...]) -> bool:
        """Record all batches for runs from some calls, unless that takes too much memory.

        Returns:
            Whether the recordings were made.
        """
        structure = self._structure
        if structure is None:
            return False
        if stored_bytes(structure, cuts) * len(self._sample) > MEMORY:
            return False
        self._recordings = []
        try:
            with self._alone():
                # One for all batches, as in a trial: torchmetrics in skipped calls add up too.
                tally = LoggedMetrics(self._copy)
                for index in range(len(self._sample)):
                    run = self._run(index, tally)
                    self._recordings.append(record(run, structure, cuts))
        except ReplayError as error:
            rank_zero_info(f"scan: each trial runs the whole network, because {error}")
            self._structure, self._recordings = None, []
            return False
        self._recorded = cuts
        return True

    def _is_exact(self, cut: int) -> bool:
        """Tell whether a run from a call logs the same metrics as a whole one, on two batches."""
        try:
            if self._reference is None:
                self._reference = self._run_from(0, {}, 2)
            # As text, NaN equals NaN.
            return repr(self._reference) == repr(self._run_from(cut, {}, 2))
        except ReplayError:
            return False

    def _run_batch(self, index: int, tally: LoggedMetrics, cut: int) -> None:
        run = self._run(index, tally)
        if cut and self._structure is not None:
            replay(run, self._structure, self._recordings[index], cut)
        else:
            run()

    def _run(self, index: int, tally: LoggedMetrics) -> Run:
        """Return a function that runs validation_step on a batch."""
        # If no call changes its inputs in place, the tensors of the batch need no copy.
        kept = self._structure is not None and self._structure.first_change is None
        batch = self._sample.batch(index, clone=not kept)
        return lambda: step(self._copy, batch, index, tally)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Run without gradients, without compiled code, and without effect on later runs.

        Each run starts with the same random state and the same buffers.
        """
        for buffers, name, tensor, value in self._buffers:
            buffers[name] = tensor
            if not torch.equal(tensor, value):
                tensor.copy_(value)
        view = TrainerView(self._trainer, self._copy, RunningStage.VALIDATING)
        run, eager = in_run(self._trainer, self._copy), torch.compiler.set_stance("force_eager")
        with run, attached(self._copy, view), isolate_rng(), torch.no_grad(), eager:
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            yield

    def _validate(self, values: Mapping[str, Tensor]) -> Scores:
        """Return the metrics of a whole validation with some tensors changed."""
        with self._alone(), replaced(self._copy, values):
            return validate(self._trainer, self._copy, [self._sample], 1.0)


def _saved_buffers(module: nn.Module) -> list[tuple[dict[str, Any], str, Tensor, Tensor]]:
    """Return each buffer of a module: its dict, its key there, the tensor, and a copy of it."""
    return [
        (layer._buffers, name, tensor, tensor.detach().clone())
        for layer in module.modules()
        for name, tensor in layer._buffers.items()
        if tensor is not None
    ]


def _near(one: float, other: float | None) -> bool:
    """Tell whether two metrics are equal up to float32 rounding; NaN equals NaN."""
    if other is None:
        return False
    return (
        one == other or abs(one - other) <= 1e-5 * max(abs(one), abs(other)) or one != one != other
    )
