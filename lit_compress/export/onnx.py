"""From a module to a graph, and from a graph to a lean ONNX file."""

from __future__ import annotations

import io
import logging
import re
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lit_compress.errors import ExportError
from lit_compress.export.idle_means import drop_idle_means
from lit_compress.export.signature import INPUT, Batch, as_tuple, is_batched

BATCH = "batch"
TORCH = str(Path(torch.__file__).parent)
#: Where a call passes through on its way to the user's network.
OWN = tuple(str(Path(__file__).parents[1] / name) for name in ("export", "quantization"))
STDLIB = sysconfig.get_path("stdlib")


def capture(network: nn.Module, example: Batch) -> ExportedProgram:
    """Return the graph of a module in eval mode, for any batch size.

    Args:
        network: Takes tensors, returns one tensor.
        example: Two inputs or more (a batch of 1 would be baked in).

    Raises:
        ExportError: If the forward cannot be captured (the message names the line and the reason),
            or its result is not one tensor.
    """
    tensors = as_tuple(example)
    length = len(tensors[0])
    batched = [is_batched(tensor, length) for tensor in tensors]
    pair = tuple(_two(t) if of_batch else t for t, of_batch in zip(tensors, batched, strict=True))
    batch = Dim(BATCH, min=1, max=65536)
    shapes = tuple({0: batch} if of_batch else None for of_batch in batched)
    variadic = any(
        p.kind is p.VAR_POSITIONAL for p in signature(network.forward).parameters.values()
    )
    try:
        with torch.no_grad(), _quiet("torch.fx.experimental.symbolic_shapes"):
            program = torch.export.export(
                network, pair, dynamic_shapes=(shapes,) if variadic else shapes
            )
    except Exception as error:  # torch.export raises whatever the forward or its tracer raises
        raise ExportError(
            f"the forward of {_class_name(network)} cannot be exported: {_reason(error)}. Keep "
            "the forward to tensor operations whose course does not depend on the values (no "
            "`if` on a tensor, no .item()), or name the part to export by submodule"
        ) from error
    _check_outputs(program, network)
    drop_idle_means(program)
    return program


def _two(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor])[:2] if len(tensor) < 2 else tensor[:2]


def _check_outputs(program: ExportedProgram, network: nn.Module) -> None:
    outputs = program.graph_signature.user_outputs
    spec = program.call_spec.out_spec
    if len(outputs) == 1 and spec.is_leaf() and isinstance(outputs[0], str):
        return
    kind = "tensor" if spec.is_leaf() else getattr(spec.type, "__name__", str(spec.type))
    keys = f" of {', '.join(map(repr, spec.context))}" if spec.type is dict else ""
    raise ExportError(
        f"the forward of {_class_name(network)} must return one tensor to be exported, but "
        f"returns {'a constant' if kind == 'tensor' else f'a {kind}'}{keys} ({len(outputs)} "
        "values): name a part that does by submodule"
    )


def write_onnx(
    network: nn.Module | ExportedProgram,
    example: Batch,
    path: str | Path | None,
    metadata: Mapping[str, str] | None = None,
    names: Sequence[str] = (INPUT,),
    opset: int | None = None,
) -> None:
    """Write a network as an ONNX file with a batch axis called ``batch``.

    Args:
        network: Takes tensors, returns one tensor.
        example: Two inputs of it.
        path: Where to write; None only finds out whether it can be done.
        metadata: Text entries for the file's metadata.
        names: Names of its inputs in the file.
        opset: Version of ONNX's operations, from 18 to 23; default torch's own.

    Raises:
        ExportError: If an operation has no ONNX form, the message names it; or the opset cannot be
            written.
    """
    program = network if isinstance(network, ExportedProgram) else capture(network, example)
    try:
        with _quiet("torch.onnx", "onnxscript", "onnx_ir"):
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                external_data=False,
                input_names=list(names),
                output_names=["output"],
                opset_version=opset,
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

    from lit_compress.export.onnx_rewrites import reform

    model = made.model_proto
    reform(model, BATCH)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save_model(model, str(path))


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
    return stdlib or filename.startswith((TORCH, *OWN))


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
