"""Check that a captured graph gives the same outputs for the same inputs, row by row."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from lit_compress.errors import ExportError

aten = torch.ops.aten

TORCH = str(Path(torch.__file__).parent)
#: Types of inputs that a file takes and numpy has.
INPUT_TYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.uint8,
    torch.uint16,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
)
#: Types of weights that a file can be written with.
WEIGHT_TYPES = (torch.float32, torch.float64, torch.float16)
#: Bytes of weights that an ONNX file has at most. protobuf's limit is 2 GiB, also for what
#: describes them.
LARGEST = 2_000_000_000
#: Names of arguments that switch the randomness of an operation off if they are false or zero.
SWITCHES = ("train", "training", "dropout_p", "p", "dropout")


def weight_bytes(network: nn.Module | ExportedProgram) -> int:
    """Return the bytes of the parameters and buffers of a network; shared ones count once.

    Args:
        network: The network, or its captured graph.
    """
    if isinstance(network, nn.Module):
        tensors: Iterable[Any] = (*network.parameters(), *network.buffers())
    else:
        tensors = (*network.state_dict.values(), *network.constants.values())
    found = {id(tensor): tensor for tensor in tensors if isinstance(tensor, Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())


def check_size(network: nn.Module | ExportedProgram) -> None:
    """Check that the weights of a network fit into an ONNX file.

    Args:
        network: The network, or its captured graph.

    Raises:
        ExportError: If they do not.
    """
    found = weight_bytes(network)
    if found > LARGEST:
        raise ExportError(
            f"the network has {found / 1e9:.2f} GB of weights, and an ONNX file has at most "
            f"{LARGEST / 1e9:.2f} GB: name a smaller part of it by submodule, or train a smaller "
            "network"
        )


def check_types(network: nn.Module, tensors: tuple[Tensor, ...]) -> None:
    """Check the types of a network's weights and inputs.

    Args:
        network: The network.
        tensors: Its inputs.

    Raises:
        ExportError: If a file cannot take or store a type; the message names the tensor.
    """
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype not in WEIGHT_TYPES:
            raise ExportError(
                f"{name} is {tensor.dtype}, which numpy does not have, so no file can be compared "
                "with the network: train with precision 32-true, 16-mixed or bf16-mixed"
            )
    for index, tensor in enumerate(tensors):
        if tensor.dtype not in INPUT_TYPES:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in INPUT_TYPES)
            name = type(getattr(network, "wrapped", network)).__name__
            raise ExportError(
                f"input {index} of {name} is {tensor.dtype}, which a file cannot take (it takes "
                f" {known}): convert it before the network is called, or name "
                "another part by submodule"
            )


def check_determined(graph: Graph, inputs: Collection[str]) -> None:
    """Check that a graph is not random, and that no output depends on the rest of the batch.

    A batch norm of a weight (weight standardisation) depends on no batch.

    Args:
        graph: The captured graph, in eval mode.
        inputs: Names of the nodes that are inputs of the network.

    Raises:
        ExportError: If an operation is random, or a batch norm uses the statistics of each batch;
            the message names the layer and the line.
    """
    given = {node for node in graph.nodes if node.name in inputs}
    for node in graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, OpOverload):
            continue
        if any(source in given for source in node.all_input_nodes):
            given.add(node)
        if torch.Tag.nondeterministic_seeded in node.target.tags and _is_random(node):
            raise ExportError(
                f"{_place(node)} is random in eval mode too, so no file can give the network's "
                "outputs: call F.dropout with training=self.training, let eval() reach the module, "
                "or name a part without it by submodule"
            )
        if node.target is aten.batch_norm.default and node.args[5] and node in given:
            raise ExportError(
                f"{_place(node)} uses the statistics of each batch in eval mode, so the outputs "
                "for an image depend on the other images: keep running statistics "
                "(track_running_stats=True) and let eval() reach the module, use a GroupNorm, or "
                "name a part without it by submodule"
            )


def _is_random(node: Node) -> bool:
    """Tell whether an operation that can be random is."""
    operation: Any = node.target
    for index, argument in enumerate(operation._schema.arguments):
        if argument.name not in SWITCHES:
            continue
        given = node.args[index] if index < len(node.args) else argument.default_value
        if not node.kwargs.get(argument.name, given):
            return False
    return True


def _place(node: Node) -> str:
    """Return the operation, its module and the line of the user's code."""
    name = getattr(node.target, "__name__", str(node.target)).partition(".")[0].rstrip("_")
    stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
    path = stack[-1].removeprefix("wrapped").lstrip(".") if stack else ""
    place = f"{name} in {path}" if path else name
    line = _user_line(node.meta.get("stack_trace") or "")
    return f"{place} ({line})" if line else place


def _user_line(stack: str) -> str:
    """Return the innermost line outside torch, with its file and number; empty if there is none."""
    found = ""
    frames = re.findall(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)', stack)
    for file, number, code in frames:
        if not file.startswith(TORCH):
            found = f"`{code}`, {Path(file).name}:{number}"
    return found
