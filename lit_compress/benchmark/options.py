"""How networks are measured."""

from __future__ import annotations

from dataclasses import dataclass

from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.runtimes import onnx, open_format
from lit_compress.runtimes.interface import Runtime
from lit_compress.timing.in_turn import FEWEST

#: The runtimes of files. The last two read those that an artefact may have for them.
ALL_RUNTIMES: tuple[Runtime, ...] = (*onnx.RUNTIMES, *open_format.RUNTIMES)
#: Names of packages that are not that of the runtime.
PACKAGES = {"litert": "ai-edge-litert"}


@dataclass(frozen=True)
class Options:
    """How networks are measured.

    Attributes:
        batches: Numbers of examples in a call; empty for the only one that the files take, or 1.
        threads: Numbers of threads.
        runtimes: Runtimes of files: ``onnxruntime`` and ``openvino``; ``executorch`` and ``litert``
            for artefacts that have files for them.
        rounds: Number of rounds, at least 10.
        seconds: Time limit of the rounds of one measurement, in seconds.
        memory: Whether to measure the peak memory.

    Raises:
        InvalidArgumentError: If a number is out of its range, or a runtime is not known.
        ArtifactError: If a runtime is not installed.
    """

    batches: tuple[int, ...] = ()
    threads: tuple[int, ...] = (1,)
    runtimes: tuple[Runtime, ...] = ("onnxruntime",)
    rounds: int = 60
    seconds: float = 10.0
    memory: bool = True

    def __post_init__(self) -> None:
        for name, numbers in (("batch", self.batches), ("threads", self.threads)):
            if any(isinstance(number, bool) or number < 1 for number in numbers):
                raise InvalidArgumentError(
                    f"{name} must be at least 1, got {' '.join(map(str, numbers))}"
                )
        if not self.threads or not self.runtimes:
            raise InvalidArgumentError("give at least one number of threads, and one runtime")
        if self.rounds < FEWEST or not self.seconds > 0:
            raise InvalidArgumentError(
                f"rounds must be at least {FEWEST} and seconds above 0, got rounds={self.rounds}, "
                f"seconds={self.seconds:g}"
            )
        for runtime in self.runtimes:
            if runtime not in ALL_RUNTIMES:
                known = ", ".join(ALL_RUNTIMES)
                raise InvalidArgumentError(f"runtime must be one of {known}, got {runtime!r}")
            home = onnx if runtime in onnx.RUNTIMES else open_format
            if not home.is_installed(runtime):
                package = PACKAGES.get(runtime, runtime)
                raise ArtifactError(
                    f"{runtime} is not installed: pip install {package}, or use another runtime"
                )
