"""A file of another format than ONNX, and what it takes and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Format = Literal["onnx", "executorch", "litert", "openvino"]
#: The formats that a network can be written in.
FORMATS: tuple[Format, ...] = ("onnx", "executorch", "litert", "openvino")


@dataclass(frozen=True)
class Port:
    """An input or output of a file.

    Attributes:
        name: Its name.
        shape: Its shape without the batch axis; -1 for a size that is not known.
        dtype: Name of its numpy type.
        batched: Whether its first axis is the batch.

    Example:
        >>> Port("input", (1, 28, 28), "uint8", batched=True).shape
        (1, 28, 28)
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    batched: bool


@dataclass(frozen=True)
class FormatFile:
    """A network in one format, for one batch size or for any.

    Attributes:
        format: The format.
        files: Names of its files.
        bytes: Size of its files together, in bytes.
        inputs: Its inputs, in order.
        outputs: Its outputs, in order.
        batch: The batch size that the file is for; None if it takes any.
        sqnr_db: Distance of its outputs to those of the float network, in dB.
        agreement: Share of equal answers, in [0, 1]; None if the outputs give no answers.
        replay_db: As ``sqnr_db``, for the inputs that are stored in the artefact.
        replay_sketch: For each output, what tells the outputs of the stored inputs from others.
        metric: Value of the metric of the card, measured with this file; None if it was not.
        notes: What differs from the ONNX file.
        metadata: Text values, as in the ONNX file.

    Example:
        >>> FormatFile("litert", ("model-b1.tflite",), 1024, (), (), batch=1).name
        'litert, batch 1'
    """

    format: Format
    files: tuple[str, ...]
    bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch: int | None = None
    sqnr_db: float | None = None
    agreement: float | None = None
    replay_db: float | None = None
    metric: float | None = None
    notes: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    replay_sketch: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.format if self.batch is None else f"{self.format}, batch {self.batch}"
