"""Where the settings of a search stand in the configuration of a fit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lit_compress.errors import LitCompressError, SearchError
from lit_compress.search.ranges import Range

#: Keys of a class in the configuration of a fit, as jsonargparse writes it.
CLASS, ARGUMENTS = "class_path", "init_args"
Place = tuple[Any, ...]


def find(config: Mapping[str, Any], key: str) -> Place:
    """Return the keys and indices that lead to a setting in the configuration of a fit.

    A callback or logger is named by its class, and ``init_args`` is left out:
    ``callbacks.FilterPruning.target``, ``model.optimizer.lr``. ``callbacks`` stands for
    ``trainer.callbacks``.

    Args:
        config: The whole configuration, with all defaults.
        key: The setting.

    Raises:
        SearchError: If there is no such setting, or it is in the configuration twice.

    Example:
        >>> callback = {"class_path": "lit_compress.callbacks.FilterPruning",
        ...             "init_args": {"target": 0.5}}
        >>> find({"trainer": {"callbacks": [callback]}}, "callbacks.FilterPruning.target")
        ('trainer', 'callbacks', 0, 'init_args', 'target')
    """
    parts = key.split(".")
    if parts[0] == "callbacks":
        parts = ["trainer", *parts]
    node: Any = config
    place: Place = ()
    for number, part in enumerate(parts):
        steps = _steps(node, part, ".".join(parts[:number]))
        for step in steps:
            node = node[step]
        place += steps
    return place


def _steps(node: Any, part: str, owner: str) -> Place:
    """Return the keys from a part of a configuration to one of its settings."""
    if isinstance(node, list):
        return (_of_class(node, part, owner),)
    before: Place = ()
    if isinstance(node, Mapping) and CLASS in node and part != CLASS:
        owner = f"{owner} ({_name(node)})"
        before, node = (ARGUMENTS,), node.get(ARGUMENTS) or {}
    if not isinstance(node, Mapping):
        raise SearchError(
            f"{owner} is {node!r} in the configuration of the fit, so it has no {part!r}: "
            "give it a class or value with that setting there"
        )
    if part in node:
        return (*before, part)
    near = get_close_matches(part, map(str, node), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(str, node)) or 'none'}"
    raise SearchError(f"{owner or 'a fit'} has no setting {part!r}: {hint}")


def _of_class(nodes: Sequence[Any], name: str, owner: str) -> int:
    """Return the index of the one object of a class in a list."""
    names = [_name(node) for node in nodes]
    if names.count(name) == 1:
        return names.index(name)
    if name in names:
        raise SearchError(f"{owner} has {name} {names.count(name)} times: a search needs it once")
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names) or 'none'}"
    raise SearchError(f"{owner} of the fit has no {name}: {hint}")


def _name(node: Any) -> str:
    """Return the name of the class of an object in a configuration."""
    path = node.get(CLASS, "") if isinstance(node, Mapping) else node
    return str(path).rpartition(".")[2]


def replaced(config: Mapping[str, Any], values: Mapping[Place, Any]) -> dict[str, Any]:
    """Return a configuration with other values; the given one is not changed.

    Args:
        config: The configuration.
        values: By place, see :func:`find`, the value.
    """
    changed = copy.deepcopy(dict(config))
    for place, value in values.items():
        node: Any = changed
        for step in place[:-1]:
            node = node[step]
        node[place[-1]] = copy.deepcopy(value)
    return changed


@dataclass(frozen=True)
class Space:
    """The configuration of a fit, and what may vary in it.

    Attributes:
        config: The whole configuration, with all defaults.
        ranges: What may vary.
        places: By setting, where it stands.
    """

    config: Mapping[str, Any]
    ranges: tuple[Range, ...]
    places: Mapping[str, Place]

    @classmethod
    def of(cls, config: Mapping[str, Any], ranges: tuple[Range, ...]) -> Space:
        """Return the space of a search.

        Args:
            config: The whole configuration of a fit.
            ranges: What may vary in it.

        Raises:
            SearchError: If a setting is not in the configuration.
        """
        places: dict[str, Place] = {}
        for key in (key for one in ranges for key in one.keys):
            with named(f"ranges: {key}"):
                places[key] = find(config, key)
        taken: dict[Place, str] = {}
        for key, place in places.items():
            if place in taken:
                raise SearchError(f"ranges: {key} and {taken[place]} are the same setting")
            taken[place] = key
        return cls(config, ranges, places)

    def suggested(self, trial: Any) -> dict[str, Any]:
        """Return by setting the value that the study's sampler takes for a trial."""
        return {one.key: one.suggest(trial) for one in self.ranges}

    def values(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return by setting the value of the parameters that the study stores of a trial."""
        return {one.key: one.value(stored[one.key]) for one in self.ranges}

    def config_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of a fit with these values.

        Args:
            values: By setting, the value.
        """
        places = {
            self.places[key]: values[one.key]
            for one in self.ranges
            if one.key in values
            for key in one.keys
        }
        return replaced(self.config, places)

    def choices_of_callbacks(self) -> list[str]:
        """Return the settings of callbacks that have choices, such as the layers that stay float.

        They can change how many bytes a parameter takes.
        """
        return [
            one.key
            for one in self.ranges
            if one.choices is not None and self.places[one.key][:2] == ("trainer", "callbacks")
        ]

    def check(self, build: Callable[[dict[str, Any]], None]) -> None:
        """Try the ends, the middle and all choices of each range, the other settings unchanged.

        Args:
            build: Builds what a fit with a configuration is made of, or raises an error.

        Raises:
            SearchError: If a value cannot be built; the message names setting and value.
        """
        for one in self.ranges:
            for value in one.probes():
                with named(f"ranges: {one.key}: {value!r} is not possible"):
                    build(self.config_of({one.key: value}))


@contextmanager
def named(where: str) -> Iterator[None]:
    """Put a place in front of the message of an error of this package in the block.

    Args:
        where: The place.

    Raises:
        SearchError: With the place, instead of the error.
    """
    try:
        yield
    except LitCompressError as error:
        raise SearchError(f"{where}: {error}") from error
