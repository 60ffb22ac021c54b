"""Find the fastest file and runtime of an artefact on this machine, and remember it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from lit_compress.artifact.card import Card
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.runtimes import onnx, open_format
from lit_compress.runtimes.format_file import FormatFile
from lit_compress.runtimes.interface import Runtime
from lit_compress.runtimes.processor import processor_name
from lit_compress.timing.remembered import Remembered

#: Number of untimed and timed calls of each file.
WARM_UP, ROUNDS = 5, 30
#: Packages whose version may change which file is the fastest.
PACKAGES = ("onnxruntime", "openvino", "executorch", "ai-edge-litert")
#: The choices of earlier processes.
REMEMBERED = Remembered("fastest", most=1000)


@dataclass(frozen=True)
class Choice:
    """A runtime, and the network that it runs.

    Attributes:
        runtime: The runtime.
        weights: ``int8`` or ``fp32``.

    Example:
        >>> Choice("onnxruntime", "int8").weights
        'int8'
    """

    runtime: Runtime
    weights: str = "int8"


def format_files(card: Card, runtime: str) -> tuple[FormatFile, ...]:
    """Return the files of an artefact that a runtime of another format reads.

    Args:
        card: The card of the artefact.
        runtime: ``executorch`` or ``litert``.
    """
    return tuple(
        found for variant in card.variants for found in variant.formats if found.format == runtime
    )


def choices(card: Card, weights: str = "int8") -> tuple[Choice, ...]:
    """Return what can be run here: each file of an artefact in each runtime that reads it.

    Args:
        card: The card of the artefact.
        weights: ``fp32`` for the float network alone.
    """
    networks = [
        name
        for name, stem in (("int8", "model"), ("fp32", "model-fp32"))
        if {f"{stem}.onnx", f"{stem}.packed"} & set(card.files) and name in ("fp32", weights)
    ]
    found = [
        Choice(runtime, name)
        for name in networks
        for runtime in onnx.RUNTIMES
        if onnx.is_installed(runtime)
    ]
    return (
        *found,
        *(
            Choice(runtime)
            for runtime in open_format.RUNTIMES
            if weights == "int8"
            and open_format.is_installed(runtime)
            and format_files(card, runtime)
        ),
    )


def fastest_choice(
    card: Card,
    found: Sequence[Choice],
    inputs: Sequence[np.ndarray],
    threads: int,
    batch: int,
    opened: Callable[[Choice], tuple[OnnxModel, Any, Any]],
) -> Choice:
    """Return the choice with the smallest median time, as it was measured on this machine.

    The files are run in turn, 30 rounds. The choice is written to the file ``fastest.json`` in the
    cache folder of the user (``XDG_CACHE_HOME``, or ``~/.cache``), and is measured anew for another
    artefact, batch size, number of threads, processor, or version of a runtime.

    Args:
        card: The card of the artefact.
        found: What can be run here, two choices or more.
        inputs: Stored inputs, as the files take them.
        threads: Number of threads.
        batch: Batch size.
        opened: Opens a choice, and returns the model first.

    Raises:
        ArtifactError: If a file cannot be opened.
    """
    key = _key(card, threads, batch, found)
    known = REMEMBERED.read()
    for choice in found:
        if known.get(key) == asdict(choice):
            return choice
    models = [opened(choice)[0] for choice in found]
    times = _times(models, inputs, batch)
    best = found[times.index(min(times))]
    REMEMBERED.add({key: asdict(best)})
    return best


def _times(models: Sequence[OnnxModel], inputs: Sequence[np.ndarray], batch: int) -> list[float]:
    """Return the median time of a call of each model, in seconds."""
    arrays = [
        np.resize(array, (batch, *array.shape[1:])) if expected.batched else array
        for expected, array in zip(models[0].inputs, inputs, strict=True)
    ]
    times: list[list[float]] = [[] for _ in models]
    for round_ in range(WARM_UP + ROUNDS):
        for model, own in zip(models, times, strict=True):
            start = perf_counter()
            model.all_outputs(*arrays)
            if round_ >= WARM_UP:
                own.append(perf_counter() - start)
    return [median(own) for own in times]


def _key(card: Card, threads: int, batch: int, found: Sequence[Choice]) -> str:
    """Return what a choice depends on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    machine = processor_name(), os.cpu_count(), versions
    chosen = [asdict(choice) for choice in found]
    return Remembered.key(dict(card.files), machine, threads, batch, chosen)
