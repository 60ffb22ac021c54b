"""The callbacks that users are offered are the public ones."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from inspect import isabstract
from pathlib import Path

from lightning.pytorch import Callback

import lit_compress
from lit_compress import callbacks

ROOT = Path(lit_compress.__file__).parent


def subclasses(base: type) -> Iterator[type]:
    for found in base.__subclasses__():
        yield found
        yield from subclasses(found)


def test_the_package_lists_the_public_classes() -> None:
    assert dir(callbacks) == sorted(callbacks.__all__)
    modules = sorted(path.stem for path in (ROOT / "callbacks").glob("[a-z]*.py"))
    assert len(modules) == len(callbacks.__all__)
    for name in callbacks.__all__:
        found = getattr(callbacks, name)
        assert found.__module__.rpartition(".")[2] in modules


def test_no_private_callback_is_offered() -> None:
    """jsonargparse offers every subclass whose path has no part with an underscore."""
    for path in ROOT.rglob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
    paths = {f"{found.__module__}.{found.__qualname__}": found for found in subclasses(Callback)}
    ours = {path: found for path, found in paths.items() if path.startswith("lit_compress.")}
    offered = {p for p, found in ours.items() if "._" not in p and not isabstract(found)}
    assert {path.rpartition(".")[2] for path in offered} == set(callbacks.__all__)
