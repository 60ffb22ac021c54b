"""What was measured of one network in one runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lit_compress.timing.intervals import Speedup


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
