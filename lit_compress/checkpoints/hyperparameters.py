"""Hyperparameters in a file: which are plain values, and which would import or need code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from lit_compress.errors import CheckpointError
from lit_compress.files.reading import reading
from lit_compress.files.yaml_text import check_yaml

#: Keys whose value is the import path of a class: those of jsonargparse, Lightning and Hydra.
CLASS_PATHS = ("class_path", "_class_path", "_target_")
#: What a file may name although it is not imported yet.
KNOWN = ("torch.optim.", "torch.nn.", "lit_compress.modules.", "lit_compress.datamodules.")
#: A name in which Python could look for a module.
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
#: Larger files are not looked into: a configuration is small.
CONFIG_BYTES = 1 << 20


def split(hparams: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the plain hyperparameters, and the classes of those that are objects.

    Args:
        hparams: The hyperparameters of a module.
    """
    values = {str(name): value for name, value in hparams.items() if _is_plain(value)}
    return values, {str(n): _class_of(v) for n, v in hparams.items() if not _is_plain(v)}


def check_class_paths(hyperparameters: object, parsed: bool) -> None:
    """Check that hyperparameters of a file do not choose what is imported.

    A class path in them is followed only if the class is imported already, or one of torch's.

    Args:
        hyperparameters: The values of the file.
        parsed: Whether jsonargparse parses them: it then takes any text for a class path, and the
            name of a file for its content.

    Raises:
        CheckpointError: If they name something else.
    """
    for key, text in _texts(hyperparameters, ""):
        named = key.rpartition(".")[2] in CLASS_PATHS
        texts = [text, *_configs(text)] if parsed else [text]
        if parsed:
            for each in texts:
                with reading(f"the hyperparameter {key} of the file", CheckpointError):
                    check_yaml(each)
        found = [name for each in texts for name in DOTTED.findall(each)] if parsed or named else []
        for name in found:
            if not _is_imported(name) and (named or _could_be_imported(name)):
                raise CheckpointError(
                    f"the hyperparameter {key} of the file names {name}, which is not imported, "
                    "and a file does not choose what is imported: if you trust it, import "
                    f"{name.rpartition('.')[0]} first, or give {key.partition('.')[0]} yourself"
                )


def _class_of(value: object) -> str:
    parts = value.values() if isinstance(value, dict) else value
    if type(value) in (list, tuple, dict):
        return next((_class_of(part) for part in parts if not _is_plain(part)), "dict")  # type: ignore[attr-defined]
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _is_plain(value: object) -> bool:
    """Tell whether a value comes back from JSON as it was."""
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(
            isinstance(n, str) and _is_plain(value[n]) for n in value
        )
    return value is None or (isinstance(value, (str, int, float)) and not isinstance(value, Enum))


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Yield all texts in a value, each with the keys that lead to it."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, f"{key}.{name}".removeprefix("."))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part, key)
    elif isinstance(value, str):
        yield key, value


def _configs(text: str) -> list[str]:
    try:
        path = Path(text)
        if path.is_file() and path.stat().st_size <= CONFIG_BYTES:
            return [path.read_text("utf-8", errors="replace")]
    except (OSError, ValueError):  # not a path
        pass
    return []


def _is_imported(name: str) -> bool:
    """Tell whether a name leads to something in a module that is imported, or known."""
    if name.startswith(KNOWN):
        return True
    module, rest = _imported_part(name)
    found: object = sys.modules.get(module)
    for attribute in rest:
        found = vars(found).get(attribute) if hasattr(found, "__dict__") else None
    return found is not None


def _could_be_imported(name: str) -> bool:
    """Tell whether there is a module that importing the name would run. Nothing is imported."""
    module, rest = _imported_part(name)
    if not module:
        return PathFinder.find_spec(rest[0]) is not None
    places = getattr(sys.modules[module], "__path__", None)
    return places is not None and PathFinder.find_spec(f"{module}.{rest[0]}", places) is not None


def _imported_part(name: str) -> tuple[str, list[str]]:
    """Return the longest part of a name that is an imported module, and the rest."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if sys.modules.get(module) is not None:
            return module, parts[length:]
    return "", parts
