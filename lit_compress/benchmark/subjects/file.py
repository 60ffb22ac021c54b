"""An artefact or an ONNX file that is timed. It needs numpy and a runtime alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from lit_compress.artifact.engines import LARGEST, RUNTIMES, Engine, Runtime, open_engine
from lit_compress.artifact.read import load, model_file, read_card
from lit_compress.artifact.replay import REPLAY, read_replay
from lit_compress.benchmark.limit import Kind, runtime_rate
from lit_compress.benchmark.subjects.inputs import Shape, random_arrays, slots_of, stored_arrays
from lit_compress.benchmark.work import Work, count_work
from lit_compress.errors import ArtifactError
from lit_compress.files.onnx_check import check_onnx
from lit_compress.files.onnx_graph import read_graph
from lit_compress.files.reading import read_limited, reading
from lit_compress.packed.model import onnx_content
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
        check: Called with each runtime before it is used.

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
        check: Callable[[Runtime], object] = bool,
    ) -> None:
        self.name = name
        self.kind = kind
        self._content = content
        self._engines: dict[tuple[str, int], Engine] = {}
        inputs = self._engine("onnxruntime", 1).inputs
        graph = read_graph(content)
        self.slots = tuple(
            replace(slot, rows=graph.rows_read_by(slot.name))
            for slot in slots_of(inputs, shapes, name)
        )
        self._stored = stored
        self.macs = macs
        self._check = check

    def runtimes(self, asked: Sequence[Runtime]) -> tuple[str, ...]:
        """Return the runtimes that are asked for, after a check that each can run the file.

        Args:
            asked: The runtimes.

        Raises:
            ArtifactError: If one is not installed, or computes other outputs than recorded.
        """
        for runtime in asked:
            self._check(runtime)
        return tuple(asked)

    def runner(self, runtime: str, threads: int, batch: int) -> Runner:
        """Return a function that runs one batch.

        Args:
            runtime: The runtime.
            threads: Number of its threads.
            batch: Number of examples.
        """
        engine, arrays = self._engine(runtime, threads), self._arrays(batch)[0]
        return lambda: engine.run(arrays)

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
        """
        return runtime_rate(cast(Runtime, runtime), threads, kind)

    def with_threads(self, threads: int) -> AbstractContextManager[None]:
        """Return an empty block: the runtime got its threads when the file was opened.

        Args:
            threads: Number of threads.
        """
        return nullcontext()

    def _engine(self, runtime: str, threads: int) -> Engine:
        if (runtime, threads) not in self._engines:
            opened = open_engine(self.name, cast(Runtime, runtime), threads, self._content)
            self._engines[runtime, threads] = opened
        return self._engines[runtime, threads]

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

    def checked(runtime: Runtime) -> None:
        if check:
            load(folder, runtime=runtime, check=stores)

    checked(RUNTIMES[0])
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
