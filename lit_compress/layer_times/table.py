"""The time of layers on this machine, measured once for each shape."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from lit_compress.errors import InvalidArgumentError
from lit_compress.layer_times.file import input_array, write_copies
from lit_compress.layer_times.layer import Layer
from lit_compress.runtimes.processor import processor_name
from lit_compress.runtimes.session import open_session
from lit_compress.timing.remembered import Remembered

#: Copies of a layer in the longer file; the shorter one has one.
COPIES = 9
#: Rounds in which both files are timed, and the seconds of a time slice.
ROUNDS, SLICE = 15, 0.001
#: The times of earlier processes.
REMEMBERED = Remembered("layer_times", most=20_000)


class LayerTimes:
    """How long ONNX Runtime takes for an int8 layer on one thread of this machine.

    A layer is timed within a file of nine copies, less a file of one: what a call costs is left
    out, and what an operation costs is counted. Times are remembered by processor, version of ONNX
    Runtime, batch size and shape, in the file ``layer_times.json`` of the user's cache folder.

    Args:
        batch: Batch size.

    Raises:
        InvalidArgumentError: If onnxruntime is not installed.

    Example:
        >>> times = LayerTimes(batch=1)
        >>> small, large = times.seconds([Layer(8, 8, (1,)), Layer(2048, 2048, (1,))])
        >>> small < large
        True
    """

    def __init__(self, batch: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise InvalidArgumentError(
                "the time of layers is measured with onnxruntime, which is not installed: "
                "pip install onnxruntime"
            ) from error
        self._batch = batch
        self._machine = [processor_name(), os.cpu_count(), onnxruntime.__version__, batch]
        self._known = REMEMBERED.read()

    def seconds(self, layers: Sequence[Layer]) -> list[float]:
        """Return the time of each layer in seconds.

        Args:
            layers: The layers; shapes that are not known yet are measured.
        """
        keys = {layer: self._key(layer) for layer in layers}
        found = {
            key: _seconds(layer, self._batch)
            for layer, key in keys.items()
            if not isinstance(self._known.get(key), float)
        }
        if found:
            self._known |= found
            REMEMBERED.add(found)
        return [self._known[keys[layer]] for layer in layers]

    def _key(self, layer: Layer) -> str:
        return REMEMBERED.key(self._machine, asdict(layer))


def _seconds(layer: Layer, batch: int) -> float:
    """Measure the time of a layer."""
    array = input_array(layer, batch)
    short, long = (_runner(write_copies(layer, copies), array) for copies in (1, COPIES))
    calls = max(1, round(SLICE / _once(long, 2)))
    differences = [_once(long, calls) - _once(short, calls) for _ in range(ROUNDS)]
    return max(0.0, median(differences) / (COPIES - 1))


def _runner(content: bytes, array: np.ndarray) -> Callable[[], Any]:
    """Return a function that runs a file once."""
    session = open_session(content, threads=1)
    feed = {"x": array}
    session.run(["y0"], feed)
    return lambda: session.run(["y0"], feed)


def _once(run: Callable[[], Any], calls: int) -> float:
    """Return the seconds of one call."""
    start = perf_counter()
    for _ in range(calls):
        run()
    return (perf_counter() - start) / calls
