"""Time one network, or two in turn, and measure what belongs to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from lit_compress.benchmark.limit import Kind, Limit
from lit_compress.benchmark.measured import Measured
from lit_compress.benchmark.memory import Job, UnmeasuredError, peak_memory
from lit_compress.benchmark.options import Options
from lit_compress.benchmark.result import Benchmark
from lit_compress.benchmark.subjects.inputs import Shape
from lit_compress.benchmark.subjects.opening import open_subject
from lit_compress.benchmark.subjects.subject import Subject, check_alike, check_batch
from lit_compress.benchmark.timed import Row, time_rows
from lit_compress.benchmark.work import UncountedError, Work
from lit_compress.timing.environment import environment

#: Load of the machine that is not worth a warning.
SPARE = 0.5


@dataclass(frozen=True)
class _Counted:
    """The work of a network, or the MACs that its card states, and why there is no share."""

    work: Work | None
    macs: int | None
    reason: str = ""


def run_benchmark(
    path: str | Path,
    other: str | Path | None = None,
    options: Options | None = None,
    shapes: Sequence[Shape] = (),
    model: str | None = None,
) -> Benchmark:
    """Measure a network on this machine, or two networks in turn.

    All is opened, and each batch run once, before anything is timed. Files need numpy and a runtime
    alone; a checkpoint needs torch and Lightning, and runs eagerly in eval mode.

    Args:
        path: An artefact, an ONNX file, a packed file, or a checkpoint.
        other: A second one to compare with: each row of the first says how many times faster it is.
        options: How to measure. Default: batch 1, 1 thread, ONNX Runtime, 60 rounds.
        shapes: Shapes of one example, one for all inputs or one for each, where a file leaves them
            open, or a module has no ``example_input_array``.
        model: Import path of the class of a checkpoint's module.

    Returns:
        A row for each network, runtime, batch and number of threads.

    Raises:
        LitCompressError: If a file cannot be read or run, or a batch is not taken.

    Example:
        >>> import onnx.parser
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> options = Options(batches=(1, 8), rounds=10, memory=False)
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "model.onnx")
        ...     onnx.save(onnx.parser.parse_model('''
        ...         <ir_version: 10, opset_import: ["": 20]>
        ...         net (float[batch, 3] x) => (float[batch, 3] y) { y = Relu(x) }
        ...     '''), file)
        ...     found = run_benchmark(file, options=options)
        >>> [(row.batch, row.macs, row.inputs) for row in found.rows]
        [(1, 0, 'random numbers'), (8, 0, 'random numbers')]
    """
    options = options or Options()
    warnings = _warnings(options)
    subjects = [open_subject(one, shapes, model) for one in (path, other) if one is not None]
    if other is not None:
        check_alike(*subjects)
    groups = _groups(subjects, options)
    for row in (row for rows in groups for row in rows):
        check_batch(row.subject, row.batch)
    for row in (row for rows in groups for row in rows):
        with row.subject.with_threads(row.threads):
            row.runner()()
    counted = [_counted(subject) for subject in subjects]
    found: list[Measured] = []
    limits: dict[tuple[str, int, Kind], Limit] = {}
    for rows in groups:
        for row, timed in zip(rows, time_rows(rows, options), strict=True):
            known = _with_share(timed, row, counted[row.place], limits)
            job = Job(str((path, other)[row.place]), row.runtime, row.threads, row.batch)
            job = replace(job, shapes=tuple(shapes), model=model)
            found.append(_with_memory(known, job, options.memory))
    notes = (*_notes(found), *warnings)
    return Benchmark(tuple(found), tuple(limits.values()), environment(), notes)


def _groups(subjects: Sequence[Subject], options: Options) -> list[list[Row]]:
    """Return the rows that are timed in turn: those of one batch, number of threads, and runtime.

    Threads of one runtime wait busily after a call, and would slow the next one down. So runtimes
    are in turn only where they are compared: a checkpoint with a file.
    """
    runtimes = [subject.runtimes(options.runtimes) for subject in subjects]
    names = list(dict.fromkeys(name for found in runtimes for name in found))
    apart = [{name} for name in names] if len(set(runtimes)) == 1 else [{*names}]
    batches = options.batches or (_only_batch(subjects),)
    return [
        [
            Row(place, subject, name, threads, batch)
            for place, subject in enumerate(subjects)
            for name in runtimes[place]
            if name in together
        ]
        for threads, batch, together in product(options.threads, batches, apart)
    ]


def _only_batch(subjects: Sequence[Subject]) -> int:
    """Return the batch that a file has in its graph, or else 1."""
    fixed = [slot.batch for subject in subjects for slot in subject.slots if slot.batch is not None]
    return fixed[0] if fixed else 1


def _counted(subject: Subject) -> _Counted:
    try:
        work = subject.work()
    except UncountedError as error:
        return _Counted(None, subject.macs, str(error))
    return _Counted(work, work.total, "" if work.total else "it multiplies no matrices")


def _with_share(
    found: Measured, row: Row, counted: _Counted, limits: dict[tuple[str, int, Kind], Limit]
) -> Measured:
    """Return a row with its MACs, and its share of the limits, each of which is measured once."""
    work = counted.work
    found = replace(found, macs=counted.macs, int8_macs=work.int8 if work else None)
    if work is None or counted.reason:
        return replace(found, absent={**found.absent, "share": counted.reason})
    seconds = 0.0
    for kind, macs in work.by_kind.items():
        key = row.runtime, row.threads, kind
        try:
            if macs and key not in limits:
                limits[key] = Limit(*key, row.subject.limit(*key))
        except UncountedError as error:
            return replace(found, absent={**found.absent, "share": str(error)})
        seconds += row.batch * macs / limits[key].macs_per_second if macs else 0.0
    return replace(found, limit_seconds=seconds, share=seconds / found.seconds)


def _with_memory(found: Measured, job: Job, wanted: bool) -> Measured:
    try:
        if not wanted:
            raise UnmeasuredError("it was not asked for")
        return replace(found, peak_bytes=peak_memory(job))
    except UnmeasuredError as error:
        return replace(found, absent={**found.absent, "peak_bytes": str(error)})


def _notes(rows: Sequence[Measured]) -> list[str]:
    """Return how to read the figures."""
    notes = [f"inputs: {text} ({', '.join(files)})" for text, files in _inputs(rows).items()]
    counts = [row.rounds for row in rows]
    rounds = " to ".join(map(str, dict.fromkeys((min(counts), max(counts)))))
    notes.append(
        f"time: medians of {rounds} rounds in turn"
        + ("; 'same' where the 99 % interval contains 1" if any(r.speedups for r in rows) else "")
    )
    if any(row.share is not None for row in rows):
        notes.append(
            "of limit: the time of its multiply-accumulates at the limit, divided by the median"
        )
    if any(row.peak_bytes is not None for row in rows):
        notes.append("memory: peak of a process that loads and runs it, minus that of its imports")
    return notes


def _warnings(options: Options) -> list[str]:
    """Return what disturbs the measurement that is about to begin."""
    threads, cores = max(options.threads), os.cpu_count() or 1
    if threads > cores:
        return [f"warning: {threads} threads on {cores} cores: threads wait for each other"]
    # Windows has no load average.
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load + threads > cores + SPARE:
        return [
            f"warning: the load of this machine was {load:.1f} before, on {cores} cores: other "
            "processes take time from the measurement"
        ]
    return []


def _inputs(rows: Sequence[Measured]) -> dict[str, list[str]]:
    """Return the files by what their inputs are."""
    found: dict[str, list[str]] = {}
    for row in rows:
        files = found.setdefault(row.inputs, [])
        files += [] if row.file in files else [row.file]
    return found
