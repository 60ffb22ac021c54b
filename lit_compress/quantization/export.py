"""From a module to a graph, and from a graph to a lean ONNX file."""

from __future__ import annotations

import io
import logging
import re
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lit_compress.errors import ExportError

BATCH = "batch"
TORCH = str(Path(torch.__file__).parent)
OWN = str(Path(__file__).parent)
STDLIB = sysconfig.get_path("stdlib")


def capture(network: nn.Module, example: Tensor) -> ExportedProgram:
    """Return the graph of a module in eval mode, for any batch size.

    Args:
        network: Takes one tensor, returns one tensor.
        example: Two inputs or more (a batch of 1 would be baked in).

    Raises:
        ExportError: If the forward cannot be captured (the message names the line and the reason),
            or its result is not one tensor.
    """
    if len(example) < 2:
        example = torch.cat([example, example])
    batch = Dim(BATCH, min=1, max=65536)
    try:
        with torch.no_grad(), _quiet("torch.fx.experimental.symbolic_shapes"):
            program = torch.export.export(network, (example[:2],), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export raises whatever the forward or its tracer raises
        raise ExportError(
            f"the forward of {_class_name(network)} cannot be exported: {_reason(error)}. Keep "
            "the forward to tensor operations whose course does not depend on the values (no "
            "`if` on a tensor, no .item()), or name the part to export by submodule"
        ) from error
    outputs = program.graph_signature.user_outputs
    if len(outputs) != 1 or program.graph_signature.user_inputs[1:]:
        raise ExportError(
            f"the forward of {_class_name(network)} must take and return one tensor, but returns "
            f"{len(outputs)}: name the part to export by submodule"
        )
    return program


def write_onnx(
    network: nn.Module | ExportedProgram,
    example: Tensor,
    path: str | Path | None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network as an ONNX file with a batch axis called ``batch``.

    Args:
        network: Takes one tensor, returns one tensor.
        example: Two inputs of it.
        path: Where to write; None only finds out whether it can be done.
        metadata: Text entries for the file's metadata.

    Raises:
        ExportError: If an operation has no ONNX form; the message names it.
    """
    program = network if isinstance(network, ExportedProgram) else capture(network, example)
    try:
        with _quiet("torch.onnx", "onnxscript", "onnx_ir"):
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                external_data=False,
                input_names=["input"],
                output_names=["output"],
                verbose=False,
            )
    except Exception as error:  # the exporter wraps what its translations raise
        raise ExportError(
            f"the network cannot be written as ONNX: {_unknown_operation(error)}. Replace the "
            "operation, or name the part to export by submodule"
        ) from error
    if path is None or made is None:
        return
    import onnx

    model = made.model_proto
    _slim(model)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save_model(model, str(path))


def _slim(model: object) -> None:
    """Drop stack traces and inferred shapes, a third of a small file, and name the batch axis."""
    from onnx import ModelProto

    if not isinstance(model, ModelProto):
        raise TypeError(f"expected an ONNX ModelProto, got {type(model).__name__}")
    graph = model.graph
    del graph.value_info[:]
    for owner in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del owner.metadata_props[:]
        owner.doc_string = ""
    for value in (*graph.input, *graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes and axes[0].dim_param:
            axes[0].dim_param = BATCH


def _class_name(network: nn.Module) -> str:
    inner = getattr(network, "wrapped", network)
    return type(inner).__name__


def _reason(error: BaseException) -> str:
    """Return the first line of an error and the line of the user's code it came from."""
    if "Constraints violated" in str(error):
        return "it fixes the batch size (len(x) does, and so does a number: write x.shape[0] or -1)"
    message = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not _is_library(frame.filename) and Path(frame.filename).is_file()
    ]
    if not own:
        return message[:300]
    last = own[-1]
    return f"`{last.line}` ({Path(last.filename).name}:{last.lineno}): {message[:300]}"


def _is_library(filename: str) -> bool:
    # The standard library's folder holds site-packages too, where a user's own code may be.
    stdlib = filename.startswith(STDLIB) and "site-packages" not in filename
    return stdlib or filename.startswith((TORCH, OWN))


def _unknown_operation(error: BaseException | None) -> str:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if found := re.search(r"OpOverload\(op='([^']+)'", str(error)):
            return f"the operation {found.group(1)} has no ONNX form"
        last, error = error, error.__cause__ or error.__context__
    return next(iter(str(last).splitlines()), type(last).__name__)[:300]


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Hold back the exporter's notes and the graph it prints; errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
