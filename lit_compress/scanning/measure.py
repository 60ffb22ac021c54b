"""The scores of a network with some of its tensors changed, from the first of them on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_compress.callbacks.evaluation import clone, validate
from lit_compress.errors import ReplayError, ScanError
from lit_compress.pruning.replay import (
    Recording,
    Run,
    Structure,
    record,
    replay,
    stored_bytes,
    structure_of,
)
from lit_compress.pruning.surgery import replaced
from lit_compress.pruning.trace import named_tensors
from lit_compress.scanning.sample import Sample
from lit_compress.scanning.tally import Tally, plain_hooks, step

Scores = dict[str, float]
#: Bytes that recordings may take; where all take more, they are made anew for each layer.
MEMORY = 2 << 30


class Measure:
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
        self._cuts: dict[tuple[str, ...], int] = {}
        self._recordings: list[Recording] = []
        self._recorded: tuple[int, ...] = ()
        self._checked: dict[int, bool] = {}
        self.baseline = self._validated({})
        self.whole = self._why_whole()
        if self.whole:
            rank_zero_info(f"scan: each trial is a whole validation, since {self.whole}")
        elif cached:
            self._prepare([tuple(names) for names in tensors])

    def scores(self, values: Mapping[str, Tensor]) -> Scores:
        """Return what validation logs with some tensors changed.

        Args:
            values: The changed tensors by name.
        """
        if self.whole:
            return self._validated(values)
        cut = self._cut(tuple(values))
        tally = Tally(self._copy)
        with self._alone(), tally.in_place(), replaced(self._copy, values):
            for index in range(len(self._sample)):
                self._go(index, tally, cut)
        return tally.scores()

    def _why_whole(self) -> str:
        """Return why whole validations must be run; empty if validation_step tells as much."""
        if not plain_hooks(self._copy):
            return "the module measures in hooks beside validation_step"
        try:
            found = self.scores_by_step()
        except ScanError as error:
            return str(error)
        for name, value in self.baseline.items():
            if not _near(value, found.get(name)):
                return f"{name} is another one when validation_step is run by itself"
        self.baseline = found
        return ""

    def scores_by_step(self) -> Scores:
        """Return what validation_step alone logs, of the network as it is."""
        tally = Tally(self._copy)
        with self._alone(), tally.in_place():
            for index in range(len(self._sample)):
                self._go(index, tally, 0)
        return tally.scores()

    def _prepare(self, targets: list[tuple[str, ...]]) -> None:
        """Find from where each target must be run."""
        try:
            tally = Tally(self._copy)
            with self._alone(), tally.in_place():
                structure = structure_of(self._run(0, tally))
            if structure.changes_inputs:
                raise ReplayError("a batch or a buffer is changed in place")
        except ReplayError as error:
            rank_zero_info(f"scan: each trial runs the whole network, since {error}")
            return
        own = named_tensors(self._copy)
        self._structure = structure
        self._cuts = {names: structure.cut(own[name] for name in names) for names in targets}

    def _cut(self, names: tuple[str, ...]) -> int:
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
                    f"scan: {names[0]} is tried in runs of the whole network, as what comes before "
                    "it cannot be told apart"
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
            tally = Tally(self._copy)
            with self._alone(), tally.in_place():
                for index in range(len(self._sample)):
                    self._recordings.append(record(self._run(index, tally), structure, cuts))
        except ReplayError as error:
            rank_zero_info(f"scan: each trial runs the whole network, since {error}")
            self._structure, self._recordings = None, []
            return False
        self._recorded = cuts
        return True

    def _holds(self, cut: int) -> bool:
        """Tell whether a run from a call on gives what a whole one gives, on the first batch."""
        found = []
        for start in (0, cut):
            tally = Tally(self._copy)
            try:
                with self._alone(), tally.in_place():
                    self._go(0, tally, start)
            except ReplayError:
                return False
            found.append(tally.scores())
        return found[0] == found[1]

    def _go(self, index: int, tally: Tally, cut: int) -> None:
        run = self._run(index, tally)
        if cut and self._structure is not None:
            replay(run, self._structure, self._recordings[index], cut)
        else:
            run()

    def _run(self, index: int, tally: Tally) -> Run:
        return lambda: step(self._copy, self._sample.batches[index], index, tally)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Run without gradients, compiled code or effect on the random state."""
        with isolate_rng(), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            torch.manual_seed(0)
            yield

    def _validated(self, values: Mapping[str, Tensor]) -> Scores:
        with replaced(self._copy, values), torch.no_grad():
            return validate(self._trainer, self._copy, [self._sample], 1.0)


def _near(one: float, other: float | None) -> bool:
    if other is None:
        return False
    return (
        one == other or abs(one - other) <= 1e-5 * max(abs(one), abs(other)) or one != one != other
    )
