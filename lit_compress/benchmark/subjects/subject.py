"""What is timed: an artefact, an ONNX file, or a checkpoint, behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from lit_compress.benchmark.limit import Kind
from lit_compress.benchmark.subjects.inputs import Slot
from lit_compress.benchmark.work import Work
from lit_compress.errors import InvalidArgumentError
from lit_compress.runtimes.interface import Runtime
from lit_compress.timing.in_turn import Runner

#: The runtime of a checkpoint.
EAGER = "pytorch"


class Subject(Protocol):
    """A network that can be timed.

    Attributes:
        name: Its path, as the user gave it.
        kind: ``artefact``, ``ONNX file`` or ``checkpoint``.
        slots: Its inputs.
        macs: MACs of one example that its card states; None if there are none.
    """

    name: str
    kind: str
    slots: tuple[Slot, ...]
    macs: int | None

    def runtimes(self, asked: Sequence[Runtime]) -> tuple[str, ...]:
        """Return the runtimes that run it, of those that are asked for."""

    def runner(self, runtime: str, threads: int, batch: int) -> Runner:
        """Return a function that runs one batch."""

    def inputs_text(self, batch: int) -> str:
        """Return what the inputs of a batch are, in words."""

    def work(self) -> Work:
        """Return the MACs of one example, or raise UncountedError."""

    def limit(self, runtime: str, threads: int, kind: Kind) -> float:
        """Measure the most MACs a second for a kind of numbers, or raise UncountedError."""

    def with_threads(self, threads: int) -> AbstractContextManager[None]:
        """Return a block in which its runners have a number of threads."""


def check_batch(subject: Subject, batch: int) -> None:
    """Refuse a batch that a network does not take.

    Args:
        subject: The network.
        batch: Number of examples.

    Raises:
        InvalidArgumentError: If its file has another size for the first axis.
    """
    for slot in subject.slots:
        if slot.batch is not None and slot.batch != batch:
            raise InvalidArgumentError(
                f"{subject.name} takes batches of {slot.batch} alone (input {slot.name}), and the "
                f"batch is {batch}: give --batch {slot.batch}, or export it with a free first axis"
            )


def check_alike(one: Subject, other: Subject) -> None:
    """Refuse two networks that take examples of different shapes.

    Args:
        one: A network.
        other: Another one.

    Raises:
        InvalidArgumentError: If the shapes differ.
    """
    if [slot.shape for slot in one.slots] != [slot.shape for slot in other.slots]:
        takes = [", ".join(map(str, subject.slots)) for subject in (one, other)]
        raise InvalidArgumentError(
            f"{one.name} takes {takes[0]}, and {other.name} takes {takes[1]}: only networks whose "
            "examples have the same shape are compared"
        )
