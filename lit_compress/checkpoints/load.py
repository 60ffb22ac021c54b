"""Loading checkpoints and artefacts of pruned modules, with the class that was trained."""

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

#: File of the float weights in an artefact.
WEIGHTS = "model.safetensors"
#: Key of the module's hyperparameters in the metadata of that file.
HYPERPARAMETERS = "lit_compress.hyperparameters"

#: Functions of Lightning that build the module of a checkpoint of the command line.
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
    """Return a LightningModule with the weights of a checkpoint, in the shapes after pruning.

    Does what ``cls.load_from_checkpoint`` does, also for checkpoints of networks that lost
    channels. Nothing in the file is executed.

    Args:
        cls: Class of the LightningModule that was trained.
        path: Path of the checkpoint.
        map_location: Device for the tensors. Default: as in the checkpoint.
        strict: Whether the names of all tensors must match. Default: as the module says.
        arguments: Constructor arguments that replace hyperparameters of the checkpoint.

    Raises:
        CheckpointError: If the file is missing or damaged, contains more than plain values and
            tensors, or is of another architecture.
        PlanError: If the record of the pruned channels is damaged.

    Example:
        >>> import tempfile
        >>> import lightning as L
        >>> from lit_compress import load_from_checkpoint
        >>> from lit_compress.modules import ShuffleNetV2
        >>> trainer = L.Trainer(logger=False, enable_checkpointing=False, barebones=True)
        >>> trainer.strategy.connect(ShuffleNetV2(width=0.5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer.save_checkpoint(f"{folder}/last.ckpt", weights_only=True)
        ...     module = load_from_checkpoint(ShuffleNetV2, f"{folder}/last.ckpt")
        >>> module.hparams.width
        0.5
    """
    content = read_checkpoint(path)
    cls = _built(cls, content)
    with _resizing(cls, unpruned_shapes_of(content)):
        module = cls.load_from_checkpoint(
            path, map_location=map_location, strict=strict, weights_only=True, **arguments
        )
    if (state := pruning_state_of(content)) is not None:
        state.check(named_tensors(module))
    return module


def restore(path: str | Path, cls: type[Module], **arguments: Any) -> Module:
    """Return the pruned float LightningModule of an artefact, for further training.

    Args:
        path: Path of the artefact folder.
        cls: Class of the LightningModule that was trained.
        arguments: Constructor arguments that replace the hyperparameters that the module saved
            (``save_hyperparameters``).

    Raises:
        ArtifactError: If the folder is not an artefact, or a file in it is missing or differs from
            the card.
        CheckpointError: If the weights are of another architecture.
    """
    from lit_compress.artifact.read import check_files, read_card

    card = read_card(path)
    check_files(path, card)
    if WEIGHTS not in card.files:
        raise ArtifactError(f"{path} has no {WEIGHTS}: there are no float weights to restore")
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
    with _resizing(cls, unpruned_shapes_of(content)):
        return cls.load_from_checkpoint(
            file, map_location="cpu", strict=None, weights_only=True, **arguments
        )


def save_weights(
    module: LightningModule, path: Path, original: UnprunedShapes | None = None
) -> None:
    """Write the weights of a module as a safetensors file, whole or not at all.

    Args:
        module: The module. Its plain hyperparameters are stored in the metadata of the file.
        path: Path of the file.
        original: Shapes of the network before it was pruned, stored in the metadata too.
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
        CheckpointError: If the file is damaged.
    """
    from safetensors import safe_open

    def read() -> tuple[dict[str, Tensor], dict[str, str]]:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, dict(file.metadata() or {})

    return read_plain(path, read)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that can be written as JSON."""
    kept = {}
    for name, value in values.items():
        try:
            if json.loads(json.dumps(value)) == (
                list(value) if isinstance(value, tuple) else value
            ):
                kept[name] = value
        except (TypeError, ValueError):
            continue  # an object, which restore takes as an argument
    return kept


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: If the file is missing or damaged, or contains more than plain values and
            tensors.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"there is no checkpoint {Path(path).resolve()}")
    content = read_plain(path, lambda: torch.load(path, map_location="cpu", weights_only=True))
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path} is not a Lightning checkpoint: it has no state_dict")
    return content


def check_whole(path: str | Path | None) -> None:
    """Check that the file of a checkpoint exists and is complete.

    Args:
        path: Path of the file. A word such as ``best``, or a URL, is not checked.

    Raises:
        CheckpointError: If the file does not exist or is not complete.
    """
    if path is None or "." not in str(path) or "://" in str(path):
        return
    if not Path(path).exists():
        raise CheckpointError(f"there is no checkpoint {Path(path).resolve()}")
    if Path(path).is_file() and not is_zipfile(path):
        raise CheckpointError(f"{path} is not a checkpoint, or is not complete")


def _built(cls: type[Module], content: Mapping[str, Any]) -> type[Module]:
    """Return the class that a checkpoint of the command line names, or else the given one.

    Nothing is imported for it: a file must not choose what is imported.
    """
    hyperparameters = content.get(cls.CHECKPOINT_HYPER_PARAMS_KEY)
    if not isinstance(hyperparameters, Mapping):
        return cls
    builder, name = (hyperparameters.get(key) for key in ("_instantiator", "_class_path"))
    if builder not in (None, *INSTANTIATORS):
        raise CheckpointError(
            f"the checkpoint names {builder!r} to build the module, which is not called"
        )
    if builder is None or name is None:
        return cls
    module, _, attribute = str(name).rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    if not isinstance(found, type) or not issubclass(found, cls):
        raise CheckpointError(
            f"the checkpoint is of {name}, which is not an imported subclass of {cls.__name__}: "
            "import it, or give that class"
        )
    return found


def read_plain(path: str | Path, read: Callable[[], T]) -> T:
    """Read a file, and turn any error into one that names the file.

    Args:
        path: Path of the file, for messages.
        read: Called to read it; must execute nothing in the file.

    Raises:
        CheckpointError: If the file is damaged, or contains more than plain values and tensors.
    """
    try:
        return read()
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} contains more than weights and plain values, or is damaged; only files that "
            "load with weights_only=True are read"
        ) from error
    except Exception as error:  # a damaged file fails in zipfile, safetensors or torch
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{path} cannot be read: {first}") from error


@contextmanager
def _resizing(cls: type[LightningModule], original: UnprunedShapes | None) -> Iterator[None]:
    """Let the modules of a class take the shapes of loaded weights, until the end of the block.

    Lightning builds the module and loads its weights in one call, without a hook in between.
    """
    own = cls.__dict__.get("load_state_dict")
    load = cls.load_state_dict

    def resize(module: LightningModule, state: Mapping[str, Any], *_: Any) -> None:
        if original is not None:
            check_full_size(module, original)
            resize_to(module, state, original)

    def resized(self: LightningModule, *args: Any, **kwargs: Any) -> Any:
        # A hook sees the state after the user's class has renamed entries of it.
        handle = self.register_load_state_dict_pre_hook(resize)  # type: ignore[no-untyped-call]
        try:
            return load(self, *args, **kwargs)
        finally:
            handle.remove()

    cls.load_state_dict = resized  # type: ignore[method-assign, assignment]
    try:
        yield
    except RuntimeError as error:
        if "state_dict" not in str(error):
            raise
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(
            f"the checkpoint's weights are not those of {cls.__name__}: {' '.join(lines)}"
            + ("" if original else " (it has no record of removed channels)")
        ) from error
    finally:
        if own is None:
            del cls.load_state_dict
        else:
            cls.load_state_dict = own  # type: ignore[method-assign]
