"""Capture a module as a graph, and write a graph as a small ONNX file."""

from __future__ import annotations

import io
import logging
import re
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lit_compress.errors import ExportError
from lit_compress.export.checks import check_determined, check_size, check_types
from lit_compress.export.outputs import OUTPUT
from lit_compress.export.rewrites.bounds import unify_bounds
from lit_compress.export.rewrites.constants import fold_weights
from lit_compress.export.rewrites.dequantized import share_dequantized
from lit_compress.export.rewrites.functional import make_functional
from lit_compress.export.rewrites.idle_means import drop_idle_means
from lit_compress.export.rewrites.products import products_as_linear
from lit_compress.export.rewrites.zero_sums import drop_zero_sums
from lit_compress.export.signature import INPUT, Batch, as_tuple, is_batched

#: Name of the batch axis in the ONNX file.
BATCH = "batch"
TORCH = str(Path(torch.__file__).parent)
#: Folders of this package that a call passes through before it reaches the user's network.
OWN_FOLDERS = tuple(str(Path(__file__).parents[1] / name) for name in ("export", "quantization"))
STDLIB = sysconfig.get_path("stdlib")


def capture(network: nn.Module, example: Batch) -> ExportedProgram:
    """Capture the graph of a module with :func:`torch.export.export`, for any batch size.

    Args:
        network: Module in eval mode that takes tensors, and returns a tensor or a tuple of tensors;
            see :class:`~lit_compress.export.outputs.FlatOutputs` for all other results.
        example: Example input, a tensor or a tuple of tensors. The first axis is the batch.

    Returns:
        The graph. It writes nothing in place, weights that are computed from others are constants,
        and averages over a single pixel and sums with zeros are removed.

    Raises:
        ExportError: If the forward cannot be captured (the message names the line and the reason),
            returns something else than tensors, is random or depends on the rest of the batch in
            eval mode, or has inputs or weights of a type that no file takes.

    Example:
        >>> import torch
        >>> program = capture(torch.nn.Linear(3, 2).eval(), torch.zeros(2, 3))
        >>> program.module()(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """
    check_types(network, as_tuple(example))
    inputs, shapes = _example_and_shapes(network, as_tuple(example))
    try:
        with (
            torch.no_grad(),
            _quiet("torch.fx.experimental.symbolic_shapes"),
            warnings.catch_warnings(),
        ):
            # Recurrent layers and the older weight_norm set their weights in each call.
            warnings.filterwarnings("ignore", r"The tensor attributes? self\..*(_flat_|\.)weight")
            program = torch.export.export(network, inputs, dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises any exception of the forward or its tracer
        raise ExportError(
            f"the forward of {_class_name(network)} cannot be exported: {_reason(error)}. Use only "
            "tensor operations, without control flow that depends on values (no `if` on a tensor, "
            "no .item()), or name the part to export by submodule"
        ) from error
    _check_outputs(program, network)
    _check_inputs_reach(program, network)
    check_determined(program.graph_module.graph, program.graph_signature.user_inputs)
    with _quiet("torch.fx.experimental.symbolic_shapes"):
        program = make_functional(program)
    unify_bounds(program)
    products_as_linear(program)
    fold_weights(program)
    drop_idle_means(program)
    drop_zero_sums(program)
    return program


def _example_and_shapes(
    network: nn.Module, tensors: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """Return example inputs with a batch of 2, and which of their axes are dynamic."""
    length = len(tensors[0])
    batched = [is_batched(tensor, length) for tensor in tensors]
    inputs = tuple(
        _two_rows(tensor) if has_batch else tensor
        for tensor, has_batch in zip(tensors, batched, strict=True)
    )
    batch = Dim(BATCH, min=1, max=65536)
    shapes = tuple({0: batch} if has_batch else None for has_batch in batched)
    parameters = signature(network.forward).parameters.values()
    variadic = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    return inputs, (shapes,) if variadic else shapes


def _two_rows(tensor: Tensor) -> Tensor:
    # torch.export treats a batch of 1 as a constant.
    return torch.cat([tensor, tensor])[:2] if len(tensor) < 2 else tensor[:2]


def _check_outputs(program: ExportedProgram, network: nn.Module) -> None:
    """Check that the graph returns a tensor, or a tuple of tensors."""
    outputs = program.graph_signature.user_outputs
    spec = program.call_spec.out_spec
    flat = spec.is_leaf() or (spec.type in (tuple, list) and spec.num_nodes == len(outputs) + 1)
    if outputs and flat and all(isinstance(name, str) for name in outputs):
        return
    kind = "constant" if spec.is_leaf() else getattr(spec.type, "__name__", str(spec.type))
    raise ExportError(
        f"the forward of {_class_name(network)} must return tensors to be exported, but returns "
        f"a {kind}{'' if flat or not outputs else ' of other values'}: name a part that returns "
        "tensors by submodule"
    )


def _check_inputs_reach(program: ExportedProgram, network: nn.Module) -> None:
    """Check that each output depends on an input: a file computes nothing else."""
    reached = set(program.graph_signature.user_inputs)
    for node in program.graph_module.graph.nodes:
        if any(source.name in reached for source in node.all_input_nodes):
            reached.add(node.name)
    for index, name in enumerate(program.graph_signature.user_outputs):
        if name not in reached:
            raise ExportError(
                f"output {index} of {_class_name(network)} depends on no input (anchors, a "
                "parameter, a size), and a file has only what is computed from inputs: leave it "
                "out of the result, or name a part without it by submodule"
            )


def write_onnx(
    network: nn.Module | ExportedProgram,
    example: Batch,
    path: str | Path | None,
    metadata: Mapping[str, str] | None = None,
    names: Sequence[str] = (INPUT,),
    opset: int | None = None,
    outputs: Sequence[str] = (OUTPUT,),
) -> None:
    """Write a network as ONNX file with a dynamic batch axis named ``batch``.

    Args:
        network: Module in eval mode that takes and returns tensors, see :func:`capture`, or its
            captured graph.
        example: Example input, see :func:`capture`.
        path: The file to write. None writes nothing and only checks that the export works.
        metadata: Text values for the metadata of the file, by key.
        names: Names of the inputs in the file. Default: one input, ``input``.
        opset: ONNX operator set version, from 18 to 23. Default: the default of torch.
        outputs: Names of the outputs in the file. Default: one output, ``output``.

    Raises:
        ExportError: If the forward cannot be captured, an operation has no ONNX form (the message
            names it), the opset is not supported, or the weights have more than 2 GB.

    Example:
        >>> import numpy as np, torch
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from lit_compress.artifact import OnnxModel
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "model.onnx")
        ...     write_onnx(torch.nn.ReLU().eval(), torch.zeros(2, 3), file)
        ...     model = OnnxModel(file)
        >>> model(np.array([[-1, 0, 1]], np.float32))
        array([[0., 0., 1.]], dtype=float32)
    """
    check_size(network)
    if isinstance(network, ExportedProgram):
        program = network
    else:
        program = capture(share_dequantized(network), example)
    check_size(program)  # weights that are computed from others are stored as they are then
    exported = _onnx_program(program, names, outputs, opset)
    if path is None or exported is None:
        return
    import onnx

    from lit_compress.export.onnx_rewrites import rewrite

    model = exported.model_proto
    rewrite(model, BATCH)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save_model(model, str(path))


def _onnx_program(
    program: ExportedProgram, names: Sequence[str], outputs: Sequence[str], opset: int | None
) -> Any:
    """Translate a graph to ONNX."""
    try:
        with _quiet("torch.onnx", "onnxscript", "onnx_ir"):
            return torch.onnx.export(
                program,
                (),
                dynamo=True,
                external_data=False,
                input_names=list(names),
                output_names=list(outputs),
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps the exceptions of its translations
        raise ExportError(
            f"the network cannot be written as ONNX: {_unknown_operation(error)}. Replace the "
            "operation, or name the part to export by submodule"
        ) from error


def _class_name(network: nn.Module) -> str:
    """Return the class name of the user's network, which may be wrapped for the export."""
    inner = getattr(network, "wrapped", network)
    return type(inner).__name__


def _reason(error: BaseException) -> str:
    """Return the first line of an error message, with the line of user code that caused it."""
    if "Constraints violated" in str(error):
        return "it fixes the batch size (len(x) does, so does a number: write x.shape[0] or -1)"
    message = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    user_frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not _is_library(frame.filename) and Path(frame.filename).is_file()
    ]
    if not user_frames:
        return message[:300]
    last = user_frames[-1]
    return f"`{last.line}` ({Path(last.filename).name}:{last.lineno}): {message[:300]}"


def _is_library(filename: str) -> bool:
    # The folder of the standard library contains site-packages, which may contain user code.
    stdlib = filename.startswith(STDLIB) and "site-packages" not in filename
    return stdlib or filename.startswith((TORCH, *OWN_FOLDERS))


def _unknown_operation(error: BaseException | None) -> str:
    """Return the operation that an exporter error is about, from the error or one of its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if match := re.search(r"OpOverload\(op='([^']+)'", str(error)):
            return f"the operation {match.group(1)} has no ONNX form"
        last, error = error, error.__cause__ or error.__context__
    return next(iter(str(last).splitlines()), type(last).__name__)[:300]


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Suppress the log messages and the output to stderr of the exporter; exceptions still rise."""
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
