"""What may vary in a fit, and between which values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite, sqrt
from typing import Any

from lit_compress.errors import SearchError

#: What a range may say.
INTERVAL, CHOICES, ALSO = {"low", "high", "log", "step"}, {"choices"}, "also"
HOW = (
    "write [low, high], {low: 0.001, high: 0.1, log: true}, {low: 8, high: 64, step: 8}, or "
    "{choices: [a, b]}"
)


@dataclass(frozen=True)
class Range:
    """The values that one setting of a fit may have.

    Attributes:
        key: The setting, such as ``callbacks.FilterPruning.target``. It is also the name of the
            parameter in the study.
        also: Other settings that always have the same value.
        choices: The values to choose from; None for an interval.
        low: The smallest value of an interval; whole numbers make an interval of whole numbers.
        high: The largest value.
        log: Whether values are drawn by their logarithm.
        step: Distance of neighbouring values; None for any value.

    Example:
        >>> Range("model.width", choices=(0.5, 1.0)).probes()
        (0.5, 1.0)
        >>> Range("callbacks.FilterPruning.target", low=0.3, high=0.9).probes()
        (0.3, 0.9, 0.6)
    """

    key: str
    also: tuple[str, ...] = ()
    choices: tuple[Any, ...] | None = None
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """All settings that have the value."""
        return (self.key, *self.also)

    def probes(self) -> tuple[Any, ...]:
        """Return values to try before the first trial: all choices, or both ends and the middle."""
        if self.choices is not None:
            return self.choices
        middle = sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        if self._is_whole:
            middle = round(middle)
        if self.step is not None:
            middle = self.low + self.step * ((middle - self.low) // self.step)
        return tuple(dict.fromkeys((self.low, self.high, middle)))

    def suggest(self, trial: Any) -> Any:
        """Return the value that the study's sampler takes for a trial.

        Args:
            trial: The ``optuna.Trial``.
        """
        if self.choices is not None:
            return self._decoded(trial.suggest_categorical(self.key, self._encoded()))
        if self._is_whole:
            step = 1 if self.step is None else self.step
            return trial.suggest_int(self.key, self.low, self.high, step=step, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def value(self, stored: Any) -> Any:
        """Return the value of a parameter as the study stores it."""
        return stored if self.choices is None else self._decoded(stored)

    def to_dict(self) -> dict[str, Any]:
        """Return the range as plain values, to compare it with that of another worker."""
        if self.choices is not None:
            return {"also": list(self.also), "choices": list(self.choices)}
        ends = {"low": self.low, "high": self.high, "log": self.log, "step": self.step}
        return {"also": list(self.also), **ends}

    @property
    def _is_whole(self) -> bool:
        return all(isinstance(end, int) for end in (self.low, self.high, self.step or 1))

    def _encoded(self) -> list[Any]:
        """Return the choices as Optuna can store them: others than single values as JSON."""
        choices = list(self.choices or ())
        if all(isinstance(c, (type(None), bool, int, float, str)) for c in choices):
            return choices
        return [json.dumps(choice, sort_keys=True) for choice in choices]

    def _decoded(self, stored: Any) -> Any:
        return (self.choices or ())[self._encoded().index(stored)]


def read_range(key: str, given: Any) -> Range:
    """Return the range that a search file gives a setting.

    Args:
        key: The setting.
        given: What the file says: ``[low, high]``, or a mapping.

    Raises:
        SearchError: If it is no range.

    Example:
        >>> read_range("data.batch_size", {"low": 32, "high": 128, "step": 32}).probes()
        (32, 128, 64)
    """
    if isinstance(given, list):
        if len(given) != 2:
            raise SearchError(f"a list is low and high, and this one has {len(given)}: {HOW}")
        given = {"low": given[0], "high": given[1]}
    if not isinstance(given, Mapping):
        raise SearchError(f"expected a range, got {given!r}: {HOW}")
    given = dict(given)
    also = _also(given.pop(ALSO, []))
    if unknown := [name for name in given if name not in INTERVAL | CHOICES]:
        raise SearchError(f"a range has no {unknown[0]!r}: {HOW}")
    if "choices" in given:
        return Range(key, also, choices=_choices(given))
    if not {"low", "high"} <= given.keys():
        raise SearchError(f"a range needs low and high, or choices: {HOW}")
    return _checked(Range(key, also, **_numbers(given)))


def _also(given: Any) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SearchError(f"also names other settings with the same value, got {given!r}")
    return tuple(names)


def _choices(given: Mapping[str, Any]) -> tuple[Any, ...]:
    choices = given["choices"]
    if len(given) > 1:
        raise SearchError("a range has choices, or low and high, and not both")
    if not isinstance(choices, list) or len(choices) < 2:
        raise SearchError(f"choices are a list of at least two values, got {choices!r}")
    if any(choice in choices[:number] for number, choice in enumerate(choices)):
        raise SearchError(f"a choice is given twice: {choices!r}")  # 1 and true are equal, too
    return tuple(choices)


def _numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise SearchError(f"log is true or false, got {log!r}")
    names = [name for name in ("low", "high", "step") if given.get(name) is not None]
    return {"log": log, **{name: _number(name, given[name]) for name in names}}


def _number(name: str, given: Any) -> float:
    """Return a number; YAML 1.1 reads 1e-3, which has no point, as text."""
    try:
        value = float(given) if isinstance(given, str) else given
    except ValueError:
        value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise SearchError(f"{name} is a number, got {given!r}; for other values: {HOW}")
    return value


def _checked(found: Range) -> Range:
    if not found.low < found.high:
        raise SearchError(f"low must be less than high, got {found.low} and {found.high}")
    if found.log and (found.low <= 0 or found.step is not None):
        raise SearchError("log needs a low above 0, and takes no step")
    if found.step is not None:
        steps = Decimal(str(found.high)) - Decimal(str(found.low))
        if found.step <= 0 or steps % Decimal(str(found.step)):
            raise SearchError(
                f"step must be above 0 and divide high - low = {steps}, got {found.step}"
            )
    return found


def read_ranges(given: Any) -> tuple[Range, ...]:
    """Return the ranges of a search file.

    Args:
        given: What the file has under ``ranges``: by setting, a range.

    Raises:
        SearchError: If one of them is no range; the message names the setting.
    """
    if not isinstance(given, Mapping) or not given:
        raise SearchError(f"ranges: name the settings that may vary, and their values: {HOW}")
    ranges = []
    for key, content in given.items():
        try:
            ranges.append(read_range(str(key), content))
        except SearchError as error:
            raise SearchError(f"ranges: {key}: {error}") from error
    _check_once([key for found in ranges for key in found.keys])
    return tuple(ranges)


def _check_once(keys: Sequence[str]) -> None:
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise SearchError(f"ranges: {twice[0]}: it is given twice")
