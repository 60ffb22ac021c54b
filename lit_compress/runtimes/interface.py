"""A file that is loaded into a runtime: what it takes, what it returns, how to run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Runtime = Literal["onnxruntime", "openvino", "executorch", "litert"]
#: Takes one array per input of a file, returns one per output.
Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Input:
    """One input of a file.

    Attributes:
        name: Name of the input in the file.
        shape: Shape of the input without the batch axis.
        dtype: numpy type of the input.
        batched: Whether the first axis of the input is the batch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batched: bool


@dataclass(frozen=True)
class Engine:
    """A file that is loaded into a runtime.

    Attributes:
        runtime: Name of the runtime.
        inputs: Inputs of the file, in order.
        outputs: Names of its outputs, in order.
        metadata: Metadata of the file: text values by key.
        run: Function that takes one array per input and returns one per output.
        again: Opens the file again, from memory. An engine with it can be pickled, for another
            process; it must be a function of a module, or a partial of one.
    """

    runtime: Runtime
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, str]
    run: Run
    again: Callable[[], Engine] | None = None

    def __reduce__(self) -> tuple[Callable[[], Engine], tuple[()]]:
        if self.again is None:
            raise TypeError("this engine does not know how to open its file again")
        return self.again, ()
