"""What was measured of one or two networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lit_compress.benchmark.limit import Limit
from lit_compress.benchmark.measured import Measured
from lit_compress.benchmark.table import text

#: Version of the JSON.
FORMAT_VERSION = 1


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
        >>> from lit_compress.timing.intervals import Speedup
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
        return text(self.rows, self.limits, self.notes)
