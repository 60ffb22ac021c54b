"""Float weights in a safetensors file, with what is needed to build their module again."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_compress.checkpoints.hyperparameters import split
from lit_compress.checkpoints.reading import read_plain
from lit_compress.errors import CheckpointError
from lit_compress.files import whole_file
from lit_compress.files.json_text import parse_json
from lit_compress.files.reading import reading
from lit_compress.pruning.channels.resize import ORIGINAL, UnprunedShapes, resize_to

#: File of the float weights in an artefact.
WEIGHTS = "model.safetensors"
#: Keys in the metadata of that file: the module's plain hyperparameters; the classes of the others,
#: by name; the argument of the constructor that all of them are given as, if it is one.
HYPERPARAMETERS = "lit_compress.hyperparameters"
OBJECTS = "lit_compress.objects"
ARGUMENT = "lit_compress.hparams_name"
#: Bytes of the length of the header in a safetensors file.
LENGTH = 8


def save_weights(
    module: LightningModule, path: Path, original: UnprunedShapes | None = None
) -> None:
    """Write the weights of a module as a safetensors file, whole or not at all.

    Equal weights with equal metadata give equal bytes.

    Args:
        module: The module. Its plain hyperparameters are stored in the metadata of the file, and
            the names of those that are objects.
        path: Path of the file.
        original: Shapes of the network before it was pruned, stored in the metadata too.
    """
    from safetensors.torch import save_file

    with whole_file(path) as part:  # not in memory, where it would be once more the weights
        save_file(_tensors(module), part, _metadata(module, original))
        _sort_metadata(part)


def holds_weights(path: Path, module: LightningModule) -> bool:
    """Tell whether a file that :func:`save_weights` wrote has the weights of a module.

    Args:
        path: Path of the file.
        module: The module.

    Raises:
        CheckpointError: If the file is damaged.
    """
    state, ours = read_safetensors(path)[0], _tensors(module)
    return state.keys() == ours.keys() and all(
        state[name].dtype == value.dtype and torch.equal(state[name], value)
        for name, value in ours.items()
    )


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


def load_saved(module: LightningModule, path: Path) -> None:
    """Load weights that :func:`save_weights` wrote; the module takes their shapes."""
    state, metadata = read_safetensors(path)
    record = metadata.get(ORIGINAL)
    with reading(path, CheckpointError):
        shapes = None if record is None else UnprunedShapes.from_dict(parse_json(record))
    resize_to(module, state, shapes)
    module.load_state_dict(state, strict=False)  # extra state is not in the file


def _tensors(module: LightningModule) -> dict[str, Tensor]:
    """Return the tensors of a module, each in a memory of its own, as the library wants them."""
    found, seen = dict[str, Tensor](), set[int]()
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            tensor = value.cpu().contiguous()
            storage = tensor.untyped_storage()
            shared = storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes
            seen.add(storage.data_ptr())
            found[name] = tensor.clone() if shared else tensor
    return found


def _sort_metadata(path: Path) -> None:
    """Bring the metadata of a safetensors file into the order of the keys.

    The library writes them in another order in each process. The file is the length of the header
    (8 bytes), the header as JSON, padded to whole 8 bytes, and the tensors.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(LENGTH), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > length:
            raise CheckpointError(
                f"the header of {path.name} is written otherwise than by the versions of "
                "safetensors that are known: install safetensors 0.8"
            )
        file.seek(LENGTH)
        file.write(text.ljust(length))


def _metadata(module: LightningModule, original: UnprunedShapes | None) -> dict[str, str]:
    name = getattr(module, "_hparams_name", None) or "kwargs"
    values, objects = split(module.hparams)
    if not isinstance(module.hparams, dict):  # a container of OmegaConf, which is an object itself
        values, objects = {}, {name: type(module.hparams).__qualname__}
    metadata = {"format": "pt", HYPERPARAMETERS: json.dumps(values)}
    if objects:
        metadata[OBJECTS] = json.dumps(objects)
    if name != "kwargs":
        metadata[ARGUMENT] = name
    if original is not None:
        metadata[ORIGINAL] = json.dumps(original.to_dict())
    return metadata
