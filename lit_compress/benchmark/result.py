"""What was measured of one or two networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lit_compress.benchmark.limit import Limit
from lit_compress.timing.intervals import Speedup

#: Version of the JSON.
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Measured:
    """What was measured of one network in one runtime, with one batch and number of threads.

    Attributes:
        file: Path of the network, as it was given.
        kind: ``artefact``, ``ONNX file`` or ``checkpoint``.
        runtime: The runtime; ``pytorch`` for a checkpoint.
        batch: Number of examples in a call.
        threads: Number of threads.
        rounds: Number of rounds that were timed.
        seconds: Median time of a call, in seconds.
        interval: 95 % interval of that median as (low, high), in seconds.
        examples_per_second: ``batch / seconds``.
        inputs: What the inputs were, in words.
        macs: Multiply-accumulates of one example; None if they
            cannot be counted; then those on the card of an artefact, if it has them.
        int8_macs: Those of int8; None if they cannot be counted.
        limit_seconds: Time that these take in a matrix product on this machine, in seconds, with
            the same runtime and threads.
        share: Share of the machine's limit, ``limit_seconds / seconds``.
        peak_bytes: Peak memory of a process that loads and runs the network, without that of its
            imports, in bytes.
        speedups: Only of the first network: how many times faster it is than the second one. The
            name ``over`` is the runtime of the second one; the interval is one of 99 %.
        absent: By name of a figure that is None, the reason.
    """

    file: str
    kind: str
    runtime: str
    batch: int
    threads: int
    rounds: int
    seconds: float
    interval: tuple[float, float]
    examples_per_second: float
    inputs: str
    macs: int | None = None
    int8_macs: int | None = None
    limit_seconds: float | None = None
    share: float | None = None
    peak_bytes: int | None = None
    speedups: tuple[Speedup, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """What tells the row from the others, in words."""
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        return f"{self.file}, {self.runtime}, batch {self.batch}, {threads}"


@dataclass(frozen=True)
class Benchmark:
    """What was measured of one or two networks.

    Attributes:
        rows: One for each network, runtime, batch and number of threads.
        limits: What this machine does at most, for each runtime and number of threads.
        environment: The machine and the versions, see
            :func:`lit_compress.timing.environment.environment`.
        notes: What a reader should know of the measurement.

    Example:
        >>> row = Measured("a.onnx", "ONNX file", "onnxruntime", batch=1, threads=1, rounds=60,
        ...     seconds=0.001, interval=(0.0009, 0.0011), examples_per_second=1000.0,
        ...     inputs="random numbers",
        ...     speedups=(Speedup("onnxruntime", 1.9, (1.8, 2.1), significant=True),))
        >>> Benchmark((row,), limits=(), environment={}).below(2.0)
        ['a.onnx, onnxruntime, batch 1, 1 thread: at least 1.80x, which is 0.20 below 2x']
        >>> Benchmark((row,), limits=(), environment={}).below(1.5)
        []
    """

    rows: tuple[Measured, ...]
    limits: tuple[Limit, ...]
    environment: Mapping[str, str | int]
    notes: tuple[str, ...] = ()

    def below(self, least: float) -> list[str]:
        """Return a line for each comparison that is not at least so many times faster.

        The low end of the interval decides.

        Args:
            least: The wanted speed-up.
        """
        return [
            f"{row.place}: at least {speedup.interval[0]:.2f}x, which is "
            f"{least - speedup.interval[0]:.2f} below {least:g}x"
            for row in self.rows
            for speedup in row.speedups
            if speedup.interval[0] < least
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "rows": [{**asdict(row), "absent": dict(row.absent)} for row in self.rows],
            "limits": [asdict(limit) for limit in self.limits],
            "notes": list(self.notes),
            "environment": dict(self.environment),
        }

    def to_json(self) -> str:
        """Return all of it as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def __str__(self) -> str:
        """Return a table with a line for each row, and the notes below it."""
        from lit_compress.benchmark.table import text

        return text(self)
