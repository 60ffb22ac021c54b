"""One line for any error of a run: what was expected, what was given instead, what to do."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from inspect import isabstract, signature

from lightning.pytorch import Trainer

from lit_compress.callbacks._run.supported import IMPORT, OTHER, package
from lit_compress.errors import LitCompressError


def explain(error: BaseException) -> str:
    """Return one line that explains an error.

    An error of this package, also among the causes, is shown by its message. For a wrong option,
    jsonargparse lists every type that the value fails to be; here only the type that was most
    likely meant is named. Any other error is shown with its class and its first 500 characters.

    Args:
        error: The error, with its causes and contexts.

    Example:
        >>> from lit_compress.cli_errors import explain
        >>> explain(FileNotFoundError(2, "No such file or directory", "a.ckpt"))
        'No such file or directory: a.ckpt'
        >>> explain(KeyError("x"))
        "KeyError: 'x' (--debug shows where)"
    """
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, LitCompressError):
            return _one_line(str(cause))
    if any(isinstance(cause, ArgumentError) for cause in chain):
        return _one_line(_argument_error(str(error), _first_line(chain[-1])))
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return f"{type(error).__name__}: {_one_line(str(error))[:500]} (--debug shows where)"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then its cause or context, then theirs, each once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _argument_error(text: str, deepest: str) -> str:
    """Return what is wrong with an option.

    Args:
        text: The whole message of jsonargparse.
        deepest: First line of the innermost error, which is about the option itself.
    """
    keys = re.findall(r'Parser key "([^"]+)"', text)
    key = keys[0] if keys else ""
    paths = [
        p for p in re.findall(r"given class_path '([^']+)'", text) if p != "lightning.Callback"
    ]
    owner = f"{key}: {paths[0].rpartition('.')[2]}" if paths else key
    return (
        _unknown_option(owner, paths, deepest)
        or _unknown_class(owner, keys, text)
        or _wrong_value(owner, keys, text, deepest)
    )


def _unknown_option(owner: str, paths: list[str], deepest: str) -> str:
    """Return the message for an option that does not exist; empty for another error."""
    if found := re.search(r"Option '([^']+)' is not accepted", deepest):
        hint = _arguments(paths, found[1])
        if owner.startswith("trainer.callbacks:") and not hint.startswith("did you mean"):
            hint += " (a flag reaches the last callback of the configs before it)"
        return f"{owner} has no argument {found[1]!r}; {hint}"
    if found := re.search(r"Group '(\S+)' does not accept option '(\S+)'", deepest):
        return f"{owner}: {found[1]} has no setting {found[2]!r}; --help lists its settings"
    if found := re.search(r"does not accept option '([^']+)'", deepest):
        return f"there is no setting {found[1]!r}; --help lists all settings"
    return ""


def _unknown_class(owner: str, keys: list[str], text: str) -> str:
    """Return the message for a class, or a choice, that does not exist; empty for another error."""
    found = re.search(r"Expected a dot import path string: (\S+)", text)
    if not found:
        return ""
    choices = re.search(r"Expected a typing\.Literal\[(.*?)\]", text)
    if choices and len(keys) > 1:
        return (
            f"{owner}.{keys[-1]}: {found[1]!r} is not one of {choices[1]}, and not the full path "
            "of a class of your own (package.module.Class)"
        )
    key = keys[0] if keys else ""
    return f"{key}: there is no class {found[1]!r}; {_classes(key, found[1])}"


def _wrong_value(owner: str, keys: list[str], text: str, deepest: str) -> str:
    """Return the message for a value that is missing, of the wrong type, or not YAML."""
    if found := re.search(r"(?:U|u)nrecognized arguments: --trainer\.(\w+)", deepest):
        near = get_close_matches(found[1], signature(Trainer).parameters, 1)
        return deepest + (f": did you mean --trainer.{near[0]}?" if near else "")
    if found := re.search(r"arguments are required: (.+)", deepest):
        return f"{owner} needs a value for {found[1]}"
    if found := re.search(r"path (\S+) does not correspond to a subclass of \w+", deepest):
        module, _, name = found[1].rpartition(".")
        kind = getattr(sys.modules.get(module), "__dict__", {}).get(name)
        if isinstance(kind, type) and package(kind) == OTHER:
            return f"{owner}: {found[1]} is of the package {OTHER}: {IMPORT}"
    if "Problems parsing config" in text:
        return f"the config is not YAML: {_one_line(text.partition('config:')[2])}"
    inner = ".".join([owner.partition(":")[0], *keys[-1:]]) if len(keys) > 1 else owner
    return f"{inner}: {_plain_types(deepest)}" if inner else deepest


def _plain_types(text: str) -> str:
    """Return a message of jsonargparse with types in words, such as ``float``."""
    text = re.sub(r'Parser key "[^"]+":?\s*', "", text)
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    return re.sub(r"typing\.Literal\[(.*?)\]", r"value of \1", text).replace(
        "Expected a ", "expected "
    )


def _arguments(paths: list[str], wrong: str) -> str:
    """Return a hint on a wrong argument: the most similar one, or all that the class takes."""
    if not paths:
        return "--help lists its arguments"
    module, _, name = paths[0].rpartition(".")
    try:
        names = list(signature(getattr(import_module(module), name)).parameters)
    except (ImportError, AttributeError, ValueError):
        return "--help lists its arguments"
    near = get_close_matches(wrong, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(names)}"


def _classes(key: str, wrong: str) -> str:
    """Return a hint on a wrong class: the most similar one, or all that can be given."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule

    bases = {"model": LightningModule, "data": LightningDataModule}
    base: type = bases.get(key, Callback)
    names = sorted({found.__name__ for found in _subclasses(base) if _is_offered(found)})
    near = get_close_matches(wrong, names, 1, 0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"give one of {', '.join(names)}, or the full path of your own (package.module.Class)"


def _is_offered(found: type) -> bool:
    """Tell whether a user can give a class: not an abstract one, nor a private one of ours."""
    from lit_compress import callbacks

    ours = found.__module__.startswith(("lit_compress.callbacks", "lit_compress.doctor"))
    return not isabstract(found) and (not ours or found.__name__ in callbacks.__all__)


def _subclasses(base: type) -> Iterator[type]:
    """Yield all subclasses of a class, at any depth, that do not start with an underscore."""
    children: list[type] = base.__subclasses__()
    for found in children:
        if not found.__name__.startswith("_"):
            yield found
        yield from _subclasses(found)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def _one_line(text: str) -> str:
    return " ".join(text.split())
