"""An artefact or an ONNX file that is timed. It needs numpy and a runtime alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from lit_compress.artifact.fastest import Choice
from lit_compress.artifact.folder.card import read_card
from lit_compress.artifact.folder.checksums import check_files
from lit_compress.artifact.folder.choice import open_choice
from lit_compress.artifact.folder.names import model_file
from lit_compress.artifact.read import load
from lit_compress.artifact.replay import REPLAY, read_replay
from lit_compress.benchmark.limit import Kind, runtime_rate
from lit_compress.benchmark.subjects.inputs import Shape, random_arrays, slots_of, stored_arrays
from lit_compress.benchmark.work import UncountedError, Work, count_work
from lit_compress.errors import ArtifactError
from lit_compress.files.onnx_check import check_onnx
from lit_compress.files.onnx_graph import read_graph
from lit_compress.files.reading import read_limited, reading
from lit_compress.packed.model import onnx_content
from lit_compress.runtimes.interface import Run, Runtime
from lit_compress.runtimes.onnx import LARGEST, RUNTIMES, open_engine
from lit_compress.timing.in_turn import Runner


class FileSubject:
    """A network in an ONNX file.

    Args:
        name: Path for messages and tables, as the user gave it.
        kind: ``artefact`` or ``ONNX file``.
        content: Content of the ONNX file, unpacked.
        shapes: Shapes of one example, for sizes that the file leaves open.
        stored: Stored inputs, one array per input.
        macs: MACs of one example on the card of the artefact, if it has them: for a file whose own
            cannot be counted.
        opened: Takes a runtime and a number of threads, and returns what runs the network: for an
            artefact, which has a file of its own for some runtimes. Default: the ONNX file is run.

    Attributes:
        name: As above.
        kind: As above.
        slots: The inputs.
        macs: As above.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        content: bytes,
        shapes: Sequence[Shape] = (),
        stored: Sequence[np.ndarray] = (),
        macs: int | None = None,
        opened: Callable[[Runtime, int], Run] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self._content = content
        self._runs: dict[tuple[str, int], Run] = {}
        self._opened = opened or self._of_onnx
        inputs = open_engine(name, "onnxruntime", 1, content).inputs
        graph = read_graph(content)
        self.slots = tuple(
            replace(slot, rows=graph.rows_read_by(slot.name))
            for slot in slots_of(inputs, shapes, name)
        )
        self._stored = stored
        self.macs = macs

    def runtimes(self, asked: Sequence[Runtime]) -> tuple[str, ...]:
        """Return the runtimes that are asked for, after the network was opened in each.

        Args:
            asked: The runtimes.

        Raises:
            ArtifactError: If one is not installed, or computes other outputs than recorded.
        """
        for runtime in asked:
            self._run(runtime, 1)
        return tuple(asked)

    def runner(self, runtime: str, threads: int, batch: int) -> Runner:
        """Return a function that runs one batch.

        Args:
            runtime: The runtime.
            threads: Number of its threads.
            batch: Number of examples.
        """
        run, arrays = self._run(runtime, threads), self._arrays(batch)[0]
        return lambda: run(arrays)

    def inputs_text(self, batch: int) -> str:
        """Return what the inputs of a batch are, in words.

        Args:
            batch: Number of examples.
        """
        return self._arrays(batch)[1]

    def work(self) -> Work:
        """Return the MACs of one example, counted in the graph.

        Raises:
            UncountedError: If the graph has operators that are not counted.
        """
        batch = next((slot.batch for slot in self.slots if slot.batch is not None), 1)
        return count_work(self._content, self._arrays(batch)[0], batch)

    def limit(self, runtime: str, threads: int, kind: Kind) -> float:
        """Measure the most MACs a second of this machine for a kind of numbers.

        Args:
            runtime: The runtime.
            threads: Number of its threads.
            kind: The numbers.

        Raises:
            UncountedError: If the runtime reads no ONNX file, which the product is in.
        """
        if runtime not in RUNTIMES:
            raise UncountedError(f"no limit is measured in {runtime}, which reads no ONNX file")
        return runtime_rate(runtime, threads, kind)

    def with_threads(self, threads: int) -> AbstractContextManager[None]:
        """Return an empty block: the runtime got its threads when the file was opened.

        Args:
            threads: Number of threads.
        """
        return nullcontext()

    def _run(self, runtime: str, threads: int) -> Run:
        if (runtime, threads) not in self._runs:
            self._runs[runtime, threads] = self._opened(cast(Runtime, runtime), threads)
        return self._runs[runtime, threads]

    def _of_onnx(self, runtime: Runtime, threads: int) -> Run:
        return open_engine(self.name, runtime, threads, self._content).run

    def _arrays(self, batch: int) -> tuple[list[np.ndarray], str]:
        stored = stored_arrays(self.slots, self._stored, batch)
        if stored is not None:
            return stored, "stored inputs"
        return random_arrays(self.slots, batch), "random numbers"


def artefact_subject(folder: Path, shapes: Sequence[Shape] = (), check: bool = True) -> FileSubject:
    """Open the int8 network of an artefact.

    Args:
        folder: The artefact folder.
        shapes: Shapes of one example, which must be those of the file.
        check: Whether to check the files, and to run the stored inputs in each runtime.

    Raises:
        ArtifactError: If it is no artefact, or is damaged.
    """
    card = read_card(folder)
    file = folder / model_file(folder, card)
    stores = REPLAY in card.files

    def opened(runtime: Runtime, threads: int) -> Run:
        if runtime in RUNTIMES:
            return open_engine(file, runtime, threads, content).run
        model = open_choice(folder, card, Choice(runtime), threads)[0]
        return lambda arrays: model.all_outputs(*arrays)

    def checked(runtime: Runtime, threads: int) -> Run:
        if check:
            load(folder, runtime=runtime, check=stores)
        return opened(runtime, threads)

    if check:
        check_files(folder, card)
    stored = read_replay(folder / REPLAY)[0] if stores else []
    macs = next((v.macs for v in reversed(card.variants) if v.file == file.name and v.macs), None)
    content = _content(file)
    return FileSubject(str(folder), "artefact", content, shapes, stored, macs, checked)


def file_subject(path: Path, shapes: Sequence[Shape] = ()) -> FileSubject:
    """Open an ONNX file, or a packed file of one.

    Args:
        path: The file.
        shapes: Shapes of one example, for sizes that the file leaves open.

    Raises:
        ArtifactError: If it is no ONNX file, or the runtime cannot load it.
    """
    return FileSubject(str(path), "ONNX file", _content(path), shapes)


def _content(path: Path) -> bytes:
    content = read_limited(path, LARGEST, ArtifactError, "a model")
    with reading(path, ArtifactError, "give an artefact, an ONNX file or a checkpoint"):
        content = onnx_content(content, str(path))
        check_onnx(content)
    return content
