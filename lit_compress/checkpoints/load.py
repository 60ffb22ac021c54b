"""Loading checkpoints and artefacts of pruned modules, with the class that was trained."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_compress.checkpoints.building import Bounded
from lit_compress.checkpoints.constructor import check_given, check_names, without_objects
from lit_compress.checkpoints.content import check_state
from lit_compress.checkpoints.reading import read_checkpoint
from lit_compress.checkpoints.saved_weights import (
    ARGUMENT,
    HYPERPARAMETERS,
    OBJECTS,
    WEIGHTS,
    read_safetensors,
)
from lit_compress.checkpoints.stand_ins import holds_objects
from lit_compress.errors import ArtifactError, CheckpointError, LitCompressError
from lit_compress.files.json_text import parse_json
from lit_compress.files.reading import as_path, reading, short
from lit_compress.pruning.blocks.surgery import forget_removed
from lit_compress.pruning.channels.resize import (
    ORIGINAL,
    check_full_size,
    resize_to,
    unpruned_shapes_of,
)
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.selection.state import pruning_state_of

Module = TypeVar("Module", bound=LightningModule)

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
    weights_only: bool = True,
    **arguments: Any,
) -> Module:
    """Return a LightningModule with the weights of a checkpoint, in the shapes after pruning.

    Does what ``cls.load_from_checkpoint`` does, also for checkpoints of networks that lost
    channels or blocks. Nothing in the file is executed, unless you say ``weights_only=False``.

    Args:
        cls: Class of the LightningModule that was trained.
        path: Path of the checkpoint.
        map_location: Device for the tensors. Default: as in the checkpoint.
        strict: Whether the names of all tensors must match. Default: as the module says.
        weights_only: Whether to make no objects from the file. Hyperparameters that are objects,
            such as modules and functions, are then given as ``arguments``. False runs code of the
            file: only for files that you trust.
        arguments: Constructor arguments that replace hyperparameters of the checkpoint.

    Raises:
        CheckpointError: If the file is missing or damaged, holds objects that are not given as
            arguments, names code that is not imported, or is of another architecture.
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
    content = read_checkpoint(path, objects="stand-ins" if weights_only else "made")
    cls = _built(cls, content)
    file: str | Path | io.BytesIO = path
    if weights_only:
        check_names(cls, content, arguments)
        if holds_objects(path):
            file = _in_memory(without_objects(cls, content, arguments))
    with _resizing(cls, content, path):
        module = cls.load_from_checkpoint(
            file, map_location=map_location, strict=strict, weights_only=weights_only, **arguments
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
            (``save_hyperparameters``). Those that are objects are not in the file.

    Raises:
        ArtifactError: If the folder is not an artefact, or a file in it is missing or differs from
            the card.
        CheckpointError: If the weights are of another architecture, the file names code that is not
            imported, or a hyperparameter that is an object is not given.
    """
    from lit_compress.artifact.folder.replaced import while_replaced

    folder = as_path(path, ArtifactError)
    return while_replaced(folder, lambda: _restored(folder, cls, arguments))


def _restored(path: Path, cls: type[Module], arguments: Mapping[str, Any]) -> Module:
    from lit_compress.artifact.folder.card import read_card
    from lit_compress.artifact.folder.checksums import check_files

    card = read_card(path)
    check_files(path, card)
    if WEIGHTS not in card.files:
        raise ArtifactError(f"{path} has no {WEIGHTS}: there are no float weights to restore")
    state, metadata = read_safetensors(path / WEIGHTS)
    check_state(path / WEIGHTS, state)
    with reading(path / WEIGHTS, CheckpointError):
        values = {key: _json(metadata.get(key, "{}")) for key in (HYPERPARAMETERS, OBJECTS)}
        original = _json(metadata[ORIGINAL]) if ORIGINAL in metadata else None
    content: dict[str, Any] = {
        "state_dict": state,
        "pytorch-lightning_version": lightning.__version__,
        cls.CHECKPOINT_HYPER_PARAMS_KEY: values[HYPERPARAMETERS],
        cls.CHECKPOINT_HYPER_PARAMS_NAME: metadata.get(ARGUMENT, "kwargs"),
    }
    if original is not None:
        content["callbacks"] = {"": {"original": original}}
    cls = _built(cls, content)
    check_names(cls, content, arguments)
    check_given(cls, content, values[OBJECTS], arguments)
    with _resizing(cls, content, path):
        return cls.load_from_checkpoint(
            _in_memory(content), map_location="cpu", strict=None, weights_only=True, **arguments
        )


def _json(text: str) -> dict[str, Any]:
    value = parse_json(text, infinite=True)
    if not isinstance(value, dict):
        raise ValueError(f"its metadata hold {type(value).__name__}, and a dictionary is expected")
    return value


def _in_memory(content: Mapping[str, Any]) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


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
    # Not getattr: a module may import what is asked of it.
    found = getattr(sys.modules.get(module), "__dict__", {}).get(attribute)
    if not isinstance(found, type) or not issubclass(found, cls):
        raise CheckpointError(
            f"the checkpoint is of {name}, which is not an imported subclass of {cls.__name__}: "
            "import it, or give that class"
        )
    return found


@contextmanager
def _resizing(
    cls: type[LightningModule], content: Mapping[str, Any], path: str | Path
) -> Iterator[None]:
    """Let the modules of a class take the shapes of loaded weights, until the end of the block.

    Lightning builds the module and loads its weights in one call, without a hook in between.
    """
    original = unpruned_shapes_of(content)
    own = cls.__dict__.get("load_state_dict")
    load = cls.load_state_dict

    def resize(module: LightningModule, state: Mapping[str, Any], *_: Any) -> None:
        if original is not None:
            check_full_size(module, original)
            resize_to(module, state, original)
            forget_removed(module)

    def resized(self: LightningModule, *args: Any, **kwargs: Any) -> Any:
        # A hook sees the state after the user's class has renamed entries of it.
        handle = self.register_load_state_dict_pre_hook(resize)  # type: ignore[no-untyped-call]
        try:
            return load(self, *args, **kwargs)
        finally:
            handle.remove()

    cls.load_state_dict = resized  # type: ignore[method-assign, assignment]
    sizes = [value.numel() for value in content["state_dict"].values() if isinstance(value, Tensor)]
    sizes += [math.prod(shape) for shape in (original.shapes.values() if original else ())]
    try:
        with Bounded(sizes):
            yield
    except LitCompressError:
        raise
    except Exception as error:  # of the module's own code, for what the file gives it
        if not isinstance(error, RuntimeError) or "state_dict" not in str(error):
            raise CheckpointError(
                f"{cls.__name__} cannot be built from {path} ({short(error)}): give the arguments "
                "that it was trained with, or load another file"
            ) from error
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
