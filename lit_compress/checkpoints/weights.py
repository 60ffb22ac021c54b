"""Loading initial weights from a checkpoint or a safetensors file; nothing in it is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.checkpoints.building import unchanged_on_error
from lit_compress.checkpoints.content import check_state
from lit_compress.checkpoints.reading import load_file, read_plain
from lit_compress.checkpoints.saved_weights import read_safetensors
from lit_compress.errors import CheckpointError, PlanError
from lit_compress.files.json_text import parse_json
from lit_compress.files.reading import reading
from lit_compress.pruning.channels.resize import (
    ORIGINAL,
    UnprunedShapes,
    check_full_size,
    resize_to,
    unpruned_shapes_of,
)

#: Types whose values can be NaN.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_weights(
    module: nn.Module, path: str | Path, argument: str = "init_from"
) -> UnprunedShapes | None:
    """Load only the weights of a file into a module: no epoch, optimizer or callbacks.

    The module takes the shapes of a network that lost channels or blocks.

    Args:
        module: The module.
        path: Path of a Lightning checkpoint (``.ckpt``), a state dict (``.pt``) or a
            ``.safetensors`` file.
        argument: Name of the argument that gave the path, for messages.

    Returns:
        The shapes of the unpruned network; None if the network of the file is not pruned.

    Raises:
        CheckpointError: If the file is missing, unreadable, or of another architecture; the module
            then does not change.
    """
    state, original = _read(Path(path), argument)
    _check_finite(state, path, argument)
    own = module.state_dict()
    if not set(state) & set(own) and {f"model.{name}" for name in state} & set(own):
        state = {f"model.{name}": tensor for name, tensor in state.items()}
    with unchanged_on_error(module), reading(path, CheckpointError):
        if original is not None and original.blocks:
            check_full_size(module, original)
            resize_to(module, state, original)
            own = module.state_dict()
        missing, surplus = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
        if missing or surplus or (shapes and original is None):
            raise CheckpointError(
                f"{argument}: the weights of {path} are not those of {type(module).__name__} "
                f"({_difference(own, state, missing, surplus, shapes)}): build the module with the "
                "arguments it was trained with"
            )
        if shapes and original is not None:
            check_full_size(module, original)
            resize_to(module, state, original)
        module.load_state_dict(state)
    return original


def recorded_progress(path: str | Path) -> tuple[dict[str, Any], ...]:
    """Return what the pruning callbacks had reached when a checkpoint was saved.

    Args:
        path: Path of a file of weights that :func:`load_weights` accepts.

    Returns:
        For each callback its name, target and share, as for a card; nothing for files without
        callbacks, and for checkpoints of older versions.
    """
    states = _rest(path).get("callbacks")
    found = [
        state["progress"]
        for state in (states.values() if isinstance(states, dict) else ())
        if isinstance(state, dict) and isinstance(state.get("progress"), dict)
    ]
    return tuple(found)


def recorded_ranges(path: str | Path) -> dict[str, Any] | None:
    """Return the ranges of quantization-aware training in a checkpoint.

    Args:
        path: Path of a file of weights that :func:`load_weights` accepts.

    Returns:
        Their state; None for files of networks that were not trained so.
    """
    states = _rest(path).get("callbacks")
    for state in states.values() if isinstance(states, dict) else ():
        found = state.get("ranges") if isinstance(state, dict) else None
        if isinstance(found, dict) and {"activations", "factors"} <= found.keys():
            return found
    return None


def trained_epochs(path: str | Path) -> int | None:
    """Return for how many epochs the weights of a file were trained.

    Args:
        path: Path of a file of weights that :func:`load_weights` accepts.

    Returns:
        The number of epochs; None for files that do not say it.
    """
    epoch = _rest(path).get("epoch")
    return epoch + 1 if isinstance(epoch, int) else None


def _rest(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint; nothing for a file that has only weights."""
    if Path(path).suffix == ".safetensors":
        return {}
    content: Any = read_plain(path, lambda: load_file(path, "stand-ins"))
    return content if isinstance(content, dict) else {}


def _read(path: Path, argument: str) -> tuple[dict[str, Tensor], UnprunedShapes | None]:
    """Return the weights of a file, and the shapes of the unpruned network if it has them."""
    if not path.is_file():
        raise CheckpointError(f"{argument}: there is no file {path.resolve()}")
    try:
        if path.suffix == ".safetensors":
            return read_plain(path, lambda: _read_safetensors(path))
        content: Any = read_plain(path, lambda: load_file(path, "stand-ins"))
    except CheckpointError as error:
        raise CheckpointError(f"{argument}: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{argument}: {path} has no state_dict of tensors")
    check_state(path, state)
    try:
        return state, unpruned_shapes_of(content)
    except PlanError as error:
        raise CheckpointError(f"{argument}: {path}: {error}") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], UnprunedShapes | None]:
    state, metadata = read_safetensors(path)
    record = metadata.get(ORIGINAL)
    return state, None if record is None else UnprunedShapes.from_dict(parse_json(record))


def _check_finite(state: Mapping[str, Tensor], path: str | Path, argument: str) -> None:
    for name, tensor in state.items():
        if tensor.dtype in FLOATS and bool(tensor.isnan().any()):
            raise CheckpointError(
                f"{argument}: {name} of {path} holds NaN: that training had diverged, take an "
                "earlier checkpoint"
            )


def _difference(
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    missing: list[str],
    surplus: list[str],
    shapes: list[str],
) -> str:
    if shapes:
        name = shapes[0]
        return (
            f"{name} is {tuple(state[name].shape)} there and {tuple(own[name].shape)} here, "
            f"{len(shapes)} such"
        )
    parts = [
        f"{len(names)} {word}, such as {names[0]}"
        for word, names in (("missing", missing), ("too many", surplus))
        if names
    ]
    return "; ".join(parts)
