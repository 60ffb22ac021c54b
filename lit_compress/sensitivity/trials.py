"""The scores of a network with some of its tensors changed, from the first of them on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_compress.errors import ReplayError, ScanError
from lit_compress.evaluation.validate import clone, validate
from lit_compress.pruning.channels.surgery import replaced
from lit_compress.pruning.channels.trace import named_tensors
from lit_compress.sensitivity.calls import Run, Structure, stored_bytes, structure_of
from lit_compress.sensitivity.logged import LoggedMetrics, plain_hooks, step
from lit_compress.sensitivity.replay import Recording, record, replay
from lit_compress.sensitivity.sample import Sample

Scores = dict[str, float]
#: Bytes that recordings may take; where all take more, they are made anew for each layer.
MEMORY = 2 << 30


class TrialRunner:
    """Scores a copy of a module on a sample, as its own validation does.

    The network before the first changed tensor is run once and remembered. Where the module makes
    other calls each time, its whole network is run instead; where its validation does more than its
    validation_step, whole validations are. Either is said.

    Args:
        trainer: The run in progress.
        module: The user's module; a copy of it is worked on.
        sample: What to measure on.
        tensors: Names of the tensors that will change, together, for each target.
        cached: Whether to remember; without, each trial is a whole run.
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
        self._whole: Scores | None = None
        self._told: set[int] = set()
        self._held = _held(self._copy)
        self.baseline = self._validated({})
        self.whole = self._why_whole()
        if self.whole:
            rank_zero_info(f"scan: each trial is a whole validation, since {self.whole}")
        elif cached:
            self._prepare([frozenset(names) for names in tensors])

    def scores(self, values: Mapping[str, Tensor]) -> Scores:
        """Return what validation logs with some tensors changed.

        Args:
            values: The changed tensors by name.
        """
        if self.whole:
            return self._validated(values)
        cut = self._cut(frozenset(values))
        try:
            return self._run_from(cut, values)
        except ReplayError as error:
            if not cut:
                raise
            if cut not in self._told:
                self._told.add(cut)
                rank_zero_info(f"scan: trials of {min(values)} run the whole network where {error}")
            return self._run_from(0, values)

    def _run_from(
        self, cut: int, values: Mapping[str, Tensor], batches: int | None = None
    ) -> Scores:
        """Return what validation_step alone logs, of a run from some call on."""
        tally = LoggedMetrics(self._copy)
        with self._alone(), replaced(self._copy, values):
            for index in range(len(self._sample))[:batches]:
                self._go(index, tally, cut)
            return tally.scores()

    def _why_whole(self) -> str:
        """Return why whole validations must be run; empty if validation_step tells as much."""
        if not plain_hooks(self._copy):
            return "the module measures in hooks beside validation_step"
        try:
            found = self._run_from(0, {})
        except ScanError as error:
            return str(error)
        except (
            Exception
        ) as error:  # it may need any part of a Trainer's loops, which are there then
            return f"validation_step does not run by itself ({type(error).__name__}: {error})"
        for name, value in self.baseline.items():
            if not _near(value, found.get(name)):
                return f"{name} is another one when validation_step is run by itself"
        self.baseline = found
        return ""

    def _prepare(self, targets: list[frozenset[str]]) -> None:
        """Find from where each target must be run."""
        with self._alone():
            structure = structure_of(self._run(0, LoggedMetrics(self._copy)))
        own = named_tensors(self._copy)
        self._structure = structure
        self._cuts = {names: structure.cut(own[name] for name in names) for names in targets}

    def _cut(self, names: frozenset[str]) -> int:
        """Return the call from which to run when tensors change, and remember what comes before."""
        cut = self._cuts.get(names, 0)
        if not cut or self._structure is None:
            return 0
        every = tuple(sorted({cut for cut in self._cuts.values() if cut}))
        if cut not in self._recorded and not self._record(every) and not self._record((cut,)):
            return 0
        if cut not in self._checked:
            self._checked[cut] = self._holds(cut)
            if not self._checked[cut]:
                rank_zero_info(
                    f"scan: {min(names)} is tried in runs of the whole network, as what comes "
                    "before it cannot be told apart"
                )
        return cut if self._checked[cut] else 0

    def _record(self, cuts: tuple[int, ...]) -> bool:
        """Remember what is needed to run from some calls, unless it takes too much memory."""
        structure = self._structure
        if structure is None:
            return False
        if stored_bytes(structure, cuts) * len(self._sample) > MEMORY:
            return False
        self._recordings = []
        try:
            with self._alone():
                tally = LoggedMetrics(
                    self._copy
                )  # metrics before a cut add up as they do in a trial
                for index in range(len(self._sample)):
                    run = self._run(index, tally)
                    self._recordings.append(record(run, structure, cuts))
        except ReplayError as error:
            rank_zero_info(f"scan: each trial runs the whole network, since {error}")
            self._structure, self._recordings = None, []
            return False
        self._recorded = cuts
        return True

    def _holds(self, cut: int) -> bool:
        """Tell whether a run from a call on gives what a whole one gives, on two batches."""
        try:
            if self._whole is None:
                self._whole = self._run_from(0, {}, 2)
            return repr(self._whole) == repr(self._run_from(cut, {}, 2))  # NaN too
        except ReplayError:
            return False

    def _go(self, index: int, tally: LoggedMetrics, cut: int) -> None:
        run = self._run(index, tally)
        if cut and self._structure is not None:
            replay(run, self._structure, self._recordings[index], cut)
        else:
            run()

    def _run(self, index: int, tally: LoggedMetrics) -> Run:
        # Where no input is changed in place, a batch's tensors need not be copied each time.
        kept = self._structure is not None and self._structure.first_change is None
        batch = self._sample.batch(index, clone=not kept)
        return lambda: step(self._copy, batch, index, tally)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Run without gradients, compiled code or effect on what comes later.

        Each run begins with the same random state, and the same buffers.
        """
        for table, name, tensor, value in self._held:
            table[name] = tensor
            if not torch.equal(tensor, value):
                tensor.copy_(value)
        with isolate_rng(), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            yield

    def _validated(self, values: Mapping[str, Tensor]) -> Scores:
        with self._alone(), replaced(self._copy, values):
            return validate(self._trainer, self._copy, [self._sample], 1.0)


def _held(module: nn.Module) -> list[tuple[dict[str, Any], str, Tensor, Tensor]]:
    """Return a module's buffers with where they are, and copies of them."""
    return [
        (layer._buffers, name, tensor, tensor.detach().clone())
        for layer in module.modules()
        for name, tensor in layer._buffers.items()
        if tensor is not None
    ]


def _near(one: float, other: float | None) -> bool:
    if other is None:
        return False
    return (
        one == other or abs(one - other) <= 1e-5 * max(abs(one), abs(other)) or one != one != other
    )
