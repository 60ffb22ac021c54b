"""Write a converted network in other formats than ONNX, and measure each file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_compress.artifact import OnnxModel
from lit_compress.artifact.replay import TOLERANCE_DB
from lit_compress.callbacks._quantization.conversion import Conversion
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.errors import ExportError
from lit_compress.files.reading import short
from lit_compress.formats import Written, exporter
from lit_compress.runtimes import Format, FormatFile, Port
from lit_compress.runtimes.interface import Runtime
from lit_compress.runtimes.open_format import open_format

#: The inputs of a file, and its outputs.
Ports = tuple[tuple[Port, ...], tuple[Port, ...]]


def write_formats(
    conversion: Conversion,
    onnx: Path,
    settings: Settings,
    trial: bool = False,
) -> tuple[FormatFile, ...]:
    """Write the files of all formats but ONNX next to the ONNX file, and compare their outputs.

    Args:
        conversion: The conversion that wrote the ONNX file.
        onnx: The ONNX file.
        settings: The formats, and the batch sizes where a file is for one.
        trial: Whether the files are only written and run once, as before the training.

    Raises:
        ExportError: If a format cannot have the network; the message names it and the reason.
    """
    found: list[FormatFile] = []
    others = [name for name in settings.formats if name != "onnx"]
    if not others:
        return ()
    ports = _ports(conversion, conversion.model)
    for name in others:
        one = exporter(name).one_batch
        sizes: Sequence[int | None] = settings.batch_sizes if one else (None,)
        for batch in sizes:
            file = _described(conversion, onnx, name, batch, ports)
            found.append(_measured(conversion, onnx, file, trial))
    return tuple(found)


def _described(
    conversion: Conversion, onnx: Path, name: Format, batch: int | None, ports: Ports
) -> FormatFile:
    """Write the file of a format, and return what it takes and returns."""
    path = onnx.with_name(onnx.stem if batch is None else f"{onnx.stem}-b{batch}")
    written = _written(conversion, onnx, name, batch, path)
    return FormatFile(
        format=name,
        files=written.files,
        bytes=sum(path.with_name(file).stat().st_size for file in written.files),
        inputs=ports[0],
        outputs=ports[1],
        batch=batch,
        notes=written.notes,
        metadata=conversion.metadata(),
    )


def _written(
    conversion: Conversion, onnx: Path, name: Format, batch: int | None, path: Path
) -> Written:
    inputs = conversion.raw_rows(batch or 2)
    try:
        with torch.no_grad():
            return exporter(name).write(conversion.graph, inputs, path, onnx)
    except Exception as error:  # each package raises what it likes
        size = "" if batch is None else f" for batch size {batch}"
        raise ExportError(
            f"{name} cannot have this network{size} ({short(error)}): leave it out of formats"
        ) from error


def _ports(conversion: Conversion, model: OnnxModel) -> Ports:
    """Return the inputs and outputs of a network; an output that grows with the batch has one."""
    inputs = tuple(
        Port(given.name, tuple(map(_size, given.shape)), given.dtype.name, given.batched)
        for given in model.inputs
    )
    few, more = (
        model.all_outputs(*conversion.arrays(model, conversion.raw_rows(rows))) for rows in (2, 3)
    )
    outputs = []
    for name, array, other in zip(model.outputs, few, more, strict=True):
        batched = array.shape[:1] == (2,) and other.shape[:1] == (3,)
        shape = array.shape[1:] if batched else array.shape
        outputs.append(Port(name, shape, array.dtype.name, batched))
    return inputs, tuple(outputs)


def _size(size: object) -> int:
    return size if isinstance(size, int) else -1


def _measured(conversion: Conversion, onnx: Path, file: FormatFile, trial: bool) -> FormatFile:
    """Return the file with its distance to the float network, and its metric."""
    runtime = cast(Runtime, file.format)
    parts = tuple(onnx.with_name(name).read_bytes() for name in file.files)
    engine = open_format(onnx.parent, runtime, [(file, parts)], 1)
    model = OnnxModel(onnx.with_name(file.files[0]), engine=engine)
    if trial:
        model.all_outputs(*conversion.arrays(model, conversion.raw_rows(2)))
        return file
    metric, quality = conversion.measured(model), conversion.compared(model)
    found = replace(
        file,
        sqnr_db=quality.sqnr_db,
        agreement=quality.agreement,
        replay_db=quality.replay_db,
        replay_sketch=quality.replay_sketch,
        metric=None if metric is None else metric.value,
    )
    _tell(found, quality.agreement_text, conversion.sqnr_db)
    return found


def _tell(file: FormatFile, agreement: str, onnx: float) -> None:
    metric = "" if file.metric is None else f", metric {file.metric:.4f}"
    notes = "".join(f"; {note}" for note in file.notes)
    rank_zero_info(
        f"{file.name}: {', '.join(file.files)}, {file.bytes:,} bytes, SQNR {file.sqnr_db:.1f} dB "
        f"({onnx:.1f} dB in ONNX Runtime), {agreement}{metric}{notes}"
    )
    if file.sqnr_db is not None and file.sqnr_db < onnx - TOLERANCE_DB:
        rank_zero_warn(
            f"the outputs of {file.files[0]} are {onnx - file.sqnr_db:.1f} dB further from those "
            "of the float network than the ONNX file's: its runtime rounds otherwise; look at its "
            "metric on the card before you use it"
        )
