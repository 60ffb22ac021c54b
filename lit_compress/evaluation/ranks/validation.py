"""Validation that the processes of a run share, with the result of one process.

Each process runs the user's steps on every n-th batch, so each image is counted once. What steps
log, and the states of torchmetrics, are joined in the first process, which runs the end of the
epoch.
Where that could give another number, the first process validates alone, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn

from lit_compress.attributes import replaced_attributes
from lit_compress.evaluation.last_validation.input_sums import InputSums
from lit_compress.evaluation.loaders import length, validation_loaders
from lit_compress.evaluation.ranks.counts import Counts, forward_of
from lit_compress.evaluation.ranks.loop import CannotShareError, Part, ShareLoop
from lit_compress.evaluation.ranks.shares import Share, why_whole
from lit_compress.evaluation.ranks.team import Collect, Failed, Team, working_team
from lit_compress.evaluation.ranks.weights import Weights
from lit_compress.evaluation.run_view.copies import clone, clone_of_state
from lit_compress.evaluation.validate import Position, batch_count, run_loop, validate
from lit_compress.measure.confusion import Confusion

#: Runs whose validation cannot be shared.
_ALONE: WeakKeyDictionary[Trainer, str] = WeakKeyDictionary()


class _FailedError(CannotShareError):
    """Another process could not do its part; it may be able to next time."""


@dataclass(frozen=True)
class Validated:
    """What validation found.

    Attributes:
        metrics: The metrics that were logged.
        position: Which batches logged each of them.
        counts: Images and answers of the network that was named; empty if none was.
    """

    metrics: dict[str, float]
    position: Position
    counts: Counts


@dataclass(frozen=True)
class Task:
    """What validation runs on.

    Attributes:
        source: Returns the loaders of a run; a function of a module, which the other processes can
            call.
        limit: Largest number of batches of each loader, or their share. Default: as in the run.
        target: Name of the network in the module whose images are counted; None counts none.
        runner: Takes the place of its forward; None leaves it.
    """

    source: Callable[[Trainer], list[Any]] = validation_loaders
    limit: int | float | None = None
    target: str | None = None
    runner: Callable[..., Any] | None = None


@dataclass(frozen=True)
class _Answer:
    """What a process sends back.

    Attributes:
        part: What its steps logged.
        images: Number of images by loader and batch.
        confusion: The answers of the network.
    """

    part: Part
    images: dict[tuple[int, int], int]
    confusion: Confusion


@dataclass(frozen=True)
class _Sent:
    """What the first process sends to the others.

    Attributes:
        task: What validation runs on.
        weights: The weights that the module has, without those of a network whose place a file
            takes.
    """

    task: Task
    weights: Weights


def validate_shared(
    trainer: Trainer,
    module: LightningModule,
    loaders: list[Any],
    task: Task | None = None,
    bar: str | None = None,
    inputs: InputSums | None = None,
) -> Validated:
    """Run the module's own validation, together with the processes that wait for this one.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.
        loaders: What the source of the task gives in this process.
        task: What validation runs on. Default: the validation data of the run.
        bar: What is written at a progress bar. Default: there is no bar.
        inputs: What the network takes is added to it, if this process validates alone.
    """
    task = task or Task()
    team = working_team(trainer)
    found = None if team is None else _shared(team, module, loaders, task, bar)
    if found is not None:
        return found
    at = Position()
    counts = Counts(at, inputs)
    with _counted(module, task, counts):
        metrics = validate(trainer, module, loaders, task.limit, position=at, bar=bar)
    return Validated(metrics, at, counts)


def _shared(
    team: Team, module: LightningModule, loaders: list[Any], task: Task, bar: str | None
) -> Validated | None:
    """Validate with the other processes; None if that cannot be, which is said."""
    trainer = team.trainer
    limit = trainer.limit_val_batches if task.limit is None else task.limit
    if sum(batch_count(length(loader), limit) for loader in loaders) < team.world:
        return None  # too few batches to send the weights for
    if trainer in _ALONE:
        return None
    why = next(filter(None, map(why_whole, loaders)), None)
    if is_param_in_hook_signature(module.validation_step, "dataloader_iter", explicit=True):
        why = "validation_step takes an iterator"
    if why is None:
        sent = _sent(module, task)
        with isolate_rng():  # which restores nothing if an error leaves it
            try:
                with team.asked(_work, sent) as collect:
                    if collect is not None:
                        return _joined(team, module, loaders, task, bar, collect)
                _tell(team, "what takes the place of its forward cannot be sent to them")
                return None
            except _FailedError as error:  # another network may do
                _tell(team, str(error))
                return None
            except CannotShareError as error:
                why = str(error)
            except Exception as error:  # of a step; alone it is raised again, or does not come
                why = f"it failed ({type(error).__name__}: {error})"
    _ALONE[trainer] = why
    _tell(team, why)
    return None


def _tell(team: Team, why: str) -> None:
    rank_zero_info(
        f"validation runs in the first process alone, and the other {team.world - 1} wait for it: "
        f"{why}"
    )


def _joined(
    team: Team,
    module: LightningModule,
    loaders: list[Any],
    task: Task,
    bar: str | None,
    collect: Collect,
) -> Validated:
    """Validate on the own batches, and join what the other processes found."""
    module = clone_of_state(team.trainer, module)  # if it cannot be shared, it begins anew
    at = Position()
    counts = Counts(at)
    answers: list[_Answer] = []

    def collected(own: Part) -> list[Part]:
        answers.extend(_whole(collect(_Answer(own, counts.images, counts.confusion))))
        return [answer.part for answer in answers]

    loop = ShareLoop(loaders, at, Share(0, team.world), module, collected)
    with _counted(module, task, counts):
        metrics = run_loop(team.trainer, module, loop, loaders, task.limit, bar)
    for other in answers[1:]:
        counts.images |= other.images
        counts.confusion.join(other.confusion)
    return Validated(metrics, at, counts)


def _whole(found: Sequence[_Answer | Failed]) -> Iterator[_Answer]:
    for rank, answer in enumerate(found):
        if isinstance(answer, Failed):
            raise _FailedError(f"process {rank} failed in it ({answer.why})")
        yield answer


def _work(trainer: Trainer, share: Share, sent: _Sent) -> _Answer:
    """Validate on the batches of this process, one of those that wait for the first."""
    task, loaders = sent.task, sent.task.source(trainer)
    module = clone(trainer, trainer.lightning_module)
    sent.weights.give_to(module)
    at = Position()
    counts = Counts(at)
    loop = ShareLoop(loaders, at, share, module)
    with _counted(module, task, counts):
        run_loop(trainer, module, loop, loaders, task.limit)
    return _Answer(loop.part, counts.images, counts.confusion)


@contextmanager
def _counted(module: nn.Module, task: Task, counts: Counts) -> Iterator[None]:
    """Count the images of the network of a task, until the end of the block."""
    if task.target is None:
        yield
        return
    target = module.get_submodule(task.target)
    forward = counts.around(forward_of(target, task.runner))
    with replaced_attributes(target, forward=forward):
        yield


def _sent(module: nn.Module, task: Task) -> _Sent:
    left_out = f"{task.target}." if task.runner is not None and task.target else None
    return _Sent(task, Weights.of(module, left_out))
