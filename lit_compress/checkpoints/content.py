"""Check what a checkpoint holds, before Lightning or a module takes it for granted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from packaging.version import InvalidVersion, Version
from torch import Tensor

from lit_compress.checkpoints.stand_ins import StandIn
from lit_compress.errors import CheckpointError

#: Key of Lightning's version.
VERSION = "pytorch-lightning_version"


def check_content(path: object, content: object) -> dict[str, Any]:
    """Return the content of a Lightning checkpoint, if each part is of the right kind.

    Args:
        path: Path of the file, for messages.
        content: What was read from it.

    Raises:
        CheckpointError: If a part is of another kind.
    """
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path} is not a Lightning checkpoint: it has no state_dict")
    for key, (wanted, holds) in PARTS.items():
        if key in content and not isinstance(content[key], StandIn) and not holds(content[key]):
            raise CheckpointError(
                f"{path} is damaged: its {key} should be {wanted}, and is "
                f"{type(content[key]).__name__}: load another checkpoint"
            )
    check_state(path, content["state_dict"])
    return content


def check_state(path: object, state: Mapping[Any, Any]) -> None:
    """Check the tensors of a state dict.

    Args:
        path: Path of the file, for messages.
        state: The state dict.

    Raises:
        CheckpointError: If a name is no text, or a tensor has no values.
    """
    for name, value in state.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path} is damaged: {name!r} in its state_dict is not a name")
        if isinstance(value, Tensor) and value.device.type == "meta":
            raise CheckpointError(
                f"{path} has no values for {name}, only its shape: save the weights themselves"
            )


def _is_version(value: object) -> bool:
    try:
        Version(value)  # type: ignore[arg-type]
    except (InvalidVersion, TypeError):
        return False
    return True


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_states(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, (Mapping, StandIn)) for one in value)


def _are_optimizers(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, StandIn)
        or (
            isinstance(one, Mapping)
            and isinstance(one.get("state"), Mapping)
            and _are_states(one.get("param_groups"))
        )
        for one in value
    )


#: What hyperparameters are not; they may be an object of another class, such as a namespace.
PLAIN = (type(None), str, bytes, int, float, list, tuple, set, Tensor)
#: By key of a checkpoint, what it should be, and whether a value is.
PARTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    VERSION: ("a version, such as 2.5.1", _is_version),
    "epoch": ("a whole number from 0", _is_count),
    "global_step": ("a whole number from 0", _is_count),
    "callbacks": ("a dictionary", lambda value: isinstance(value, Mapping)),
    "loops": ("a dictionary", lambda value: isinstance(value, Mapping)),
    "hyper_parameters": ("a dictionary", lambda value: not isinstance(value, PLAIN)),
    "optimizer_states": ("a list of optimizers' states", _are_optimizers),
    "lr_schedulers": ("a list of dictionaries", _are_states),
}
