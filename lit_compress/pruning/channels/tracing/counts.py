"""Widths that a module keeps as numbers: the heads of an attention, the channels of a view.

While a network is traced, each whole number among the attributes of its own modules is a number
that knows its name. Where such a number is a size in a reshape, the trace knows which attribute
must become smaller together with the channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lit_compress.pruning.channels.tracing.modules import module_at, named_modules


class Count(int):
    """A whole number that knows of which attribute it is the value.

    Attributes:
        owner: Name of the module and of the attribute, such as ``blocks.0.attn.num_heads``.
    """

    owner: str

    def __new__(cls, value: int, owner: str) -> Count:
        """Return the number."""
        count = super().__new__(cls, value)
        count.owner = owner
        return count

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """Let copies and pickles be plain numbers."""
        return int, (int(self),)


@contextmanager
def counted(model: nn.Module) -> Iterator[None]:
    """Let the whole numbers in a model's own modules know their names, until the end of the block.

    Args:
        model: The model. Layers of torch are left alone: their shapes say how wide they are.
    """
    replaced: list[tuple[dict[str, Any], str, int, Count]] = []
    for path, module in named_modules(model):
        if not is_own(module):
            continue
        table = vars(module)
        for name, value in list(table.items()):
            if is_count(value):
                count = Count(value, f"{path}.{name}" if path else name)
                table[name] = count
                replaced.append((table, name, value, count))
    try:
        yield
    finally:
        for table, name, value, count in replaced:
            if table.get(name) is count:
                table[name] = value


def count_at(model: nn.Module, owner: str) -> tuple[nn.Module, str, int] | None:
    """Return the module, the name and the value of a counted attribute; None if there is none.

    Args:
        model: The model.
        owner: Name of the module and of the attribute.
    """
    path, _, name = owner.rpartition(".")
    module = module_at(model, path)
    if module is None or not is_own(module) or not is_count(vars(module).get(name)):
        return None
    return module, name, int(vars(module)[name])


def is_own(module: nn.Module) -> bool:
    """Tell whether a module is written by the user or a library, and is not a layer of torch."""
    return not type(module).__module__.startswith("torch.")


def is_count(value: object) -> bool:
    """Tell whether a value is a whole number that can become smaller."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 1
