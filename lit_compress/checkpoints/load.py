"""Loading checkpoints of pruned modules with the class they were pruned from."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar
from zipfile import is_zipfile

import lightning
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_compress.errors import ArtifactError, CheckpointError
from lit_compress.pruning.channels.resize import (
    ORIGINAL,
    UnprunedShapes,
    check_full_size,
    resize_to,
    unpruned_shapes_of,
)
from lit_compress.pruning.channels.trace import named_tensors
from lit_compress.pruning.selection.state import pruning_state_of

Module = TypeVar("Module", bound=LightningModule)
T = TypeVar("T")

#: The float weights in an artefact, and the key of their file's metadata.
WEIGHTS = "model.safetensors"
HYPERPARAMETERS = "lit_compress.hyperparameters"

#: What builds the module of a checkpoint that the command line made.
INSTANTIATORS = (
    "lightning.pytorch.cli.instantiate_module",
    "pytorch_lightning.cli.instantiate_module",
)


def load_from_checkpoint(
    cls: type[Module],
    path: str | Path,
    *,
    map_location: Any = None,
    strict: bool | None = None,
    **arguments: Any,
) -> Module:
    """Return a LightningModule with a checkpoint's weights, in the shapes that pruning left.

    What ``cls.load_from_checkpoint`` does, for checkpoints made with ``FilterPruning`` too; nothing
    in the file is executed.

    Args:
        cls: The LightningModule's class, as it was trained.
        path: The checkpoint.
        map_location: Where to put the tensors; default as in the checkpoint.
        strict: Whether names must match exactly; default as the module says.
        arguments: Constructor arguments, in the place of the checkpoint's hyperparameters.

    Raises:
        CheckpointError: If the file is missing or damaged, holds more than plain values and
            tensors, or is of another architecture.
        PlanError: If the record of what was pruned is damaged.
    """
    content = read_checkpoint(path)
    cls = _built(cls, content)
    with _fitting(cls, unpruned_shapes_of(content)):
        module = cls.load_from_checkpoint(
            path, map_location=map_location, strict=strict, weights_only=True, **arguments
        )
    if (state := pruning_state_of(content)) is not None:
        state.check(named_tensors(module))
    return module


def restore(path: str | Path, cls: type[Module], **arguments: Any) -> Module:
    """Return the float LightningModule of an artefact, pruned as it is, to train on.

    Args:
        path: The artefact folder.
        cls: The LightningModule's class, as it was trained.
        arguments: Constructor arguments, in the place of the hyperparameters that the module had
            saved (``save_hyperparameters``).

    Raises:
        ArtifactError: If the folder is not an artefact, or a file in it is missing or not the one
            that the card names.
        CheckpointError: If the weights are of another architecture.
    """
    from lit_compress.artifact.read import check_files, read_card

    card = read_card(path)
    check_files(path, card)
    if WEIGHTS not in card.files:
        raise ArtifactError(f"{path} holds no {WEIGHTS}: there is nothing to restore")
    state, metadata = read_safetensors(Path(path) / WEIGHTS)
    content: dict[str, Any] = {
        "state_dict": state,
        "pytorch-lightning_version": lightning.__version__,
        cls.CHECKPOINT_HYPER_PARAMS_KEY: json.loads(metadata.get(HYPERPARAMETERS, "{}")),
    }
    if ORIGINAL in metadata:
        content["callbacks"] = {"": {"original": json.loads(metadata[ORIGINAL])}}
    cls = _built(cls, content)
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    with _fitting(cls, unpruned_shapes_of(content)):
        return cls.load_from_checkpoint(
            file, map_location="cpu", strict=None, weights_only=True, **arguments
        )


def save_weights(
    module: LightningModule, path: Path, original: UnprunedShapes | None = None
) -> None:
    """Write a module's weights as safetensors, in one step.

    Args:
        module: The module; its plain hyperparameters go into the file's metadata.
        path: The file.
        original: What the network was before it was pruned, kept in the file's metadata.
    """
    from safetensors.torch import save_file

    state = {
        name: value.cpu().contiguous().clone()
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    metadata = {"format": "pt", HYPERPARAMETERS: json.dumps(_plain(module.hparams))}
    if original is not None:
        metadata[ORIGINAL] = json.dumps(original.to_dict())
    save_file(state, partial, metadata)
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        CheckpointError: If it is damaged.
    """
    from safetensors import safe_open

    def read() -> tuple[dict[str, Tensor], dict[str, str]]:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, dict(file.metadata() or {})

    return read_plain(path, read)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that JSON can hold."""
    kept = {}
    for name, value in values.items():
        try:
            if json.loads(json.dumps(value)) == (
                list(value) if isinstance(value, tuple) else value
            ):
                kept[name] = value
        except (TypeError, ValueError):
            continue  # an object: restore takes it as an argument
    return kept


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return what is in a checkpoint, on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: If it is missing or damaged, or holds more than plain values and tensors.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"there is no checkpoint {Path(path).resolve()}")
    content = read_plain(path, lambda: torch.load(path, map_location="cpu", weights_only=True))
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path} is no Lightning checkpoint: it holds no state_dict")
    return content


def check_whole(path: str | Path | None) -> None:
    """Make sure that a checkpoint that is named by a path is there, and was written to its end.

    Args:
        path: The path; a word such as ``best`` or an address is left alone.

    Raises:
        CheckpointError: If it is not.
    """
    if path is None or "." not in str(path) or "://" in str(path):
        return
    if not Path(path).exists():
        raise CheckpointError(f"there is no checkpoint {Path(path).resolve()}")
    if Path(path).is_file() and not is_zipfile(path):
        raise CheckpointError(f"{path} is no checkpoint, or was not written to its end")


def _built(cls: type[Module], content: Mapping[str, Any]) -> type[Module]:
    """Return the class that a checkpoint of the command line names, the one given for any other.

    Nothing is imported for it: a file must not choose what is.
    """
    hyperparameters = content.get(cls.CHECKPOINT_HYPER_PARAMS_KEY)
    if not isinstance(hyperparameters, Mapping):
        return cls
    builder, name = (hyperparameters.get(key) for key in ("_instantiator", "_class_path"))
    if builder not in (None, *INSTANTIATORS):
        raise CheckpointError(f"the checkpoint asks to be built by {builder!r}, which is not run")
    if builder is None or name is None:
        return cls
    module, _, attribute = str(name).rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    if not isinstance(found, type) or not issubclass(found, cls):
        raise CheckpointError(
            f"the checkpoint is of {name}, which is no class of {cls.__name__} that has been "
            "imported: import it, or give that class"
        )
    return found


def read_plain(path: str | Path, read: Callable[[], T]) -> T:
    """Return what is read from a file.

    Args:
        path: The file, for messages.
        read: Reads it; executes nothing in it.

    Raises:
        CheckpointError: If it is damaged, or holds more than plain values and tensors.
    """
    try:
        return read()
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than weights and plain values, or is damaged; only what loads with "
            "weights_only=True is read"
        ) from error
    except Exception as error:  # a damaged file fails in zipfile, safetensors or torch
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{path} cannot be read: {first}") from error


@contextmanager
def _fitting(cls: type[LightningModule], original: UnprunedShapes | None) -> Iterator[None]:
    """Let a class fit its modules' shapes to the weights they load, until the end of the block.

    Lightning builds the module and loads it in one call, with no hook between the two.
    """
    own = cls.__dict__.get("load_state_dict")
    load = cls.load_state_dict

    def fit(module: LightningModule, state: Mapping[str, Any], *_: Any) -> None:
        if original is not None:
            check_full_size(module, original)
            resize_to(module, state, original)

    def fitted(self: LightningModule, *args: Any, **kwargs: Any) -> Any:
        # A hook sees the state as it is loaded, after the user's class has renamed parts of it.
        handle = self.register_load_state_dict_pre_hook(fit)  # type: ignore[no-untyped-call]
        try:
            return load(self, *args, **kwargs)
        finally:
            handle.remove()

    cls.load_state_dict = fitted  # type: ignore[method-assign, assignment]
    try:
        yield
    except RuntimeError as error:
        if "state_dict" not in str(error):
            raise
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(
            f"the checkpoint's weights are not those of {cls.__name__}: {' '.join(lines)}"
            + ("" if original else " (it has no record of channels that were removed)")
        ) from error
    finally:
        if own is None:
            del cls.load_state_dict
        else:
            cls.load_state_dict = own  # type: ignore[method-assign]
