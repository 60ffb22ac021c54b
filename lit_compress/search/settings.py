"""The file that describes a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from lit_compress.errors import SearchError
from lit_compress.files.reading import read_limited, reading
from lit_compress.files.yaml_text import LARGEST, check_yaml
from lit_compress.search.objectives import Objective, read_objectives
from lit_compress.search.ranges import Range, read_ranges
from lit_compress.search.space import named

Sampler = Literal["tpe", "nsga2", "random"]


@dataclass(frozen=True)
class Settings:
    """A search, as its file and the words of the command line describe it.

    Attributes:
        source: The file.
        ranges: What may vary.
        objectives: What is compared.
        fit: Configs of the fit, in the order in which ``lit-compress fit`` takes them.
        name: Name of the study, which all workers share. Default: the name of the file.
        trials: Number of trials of the whole study, of all workers together.
        sampler: How values are drawn: ``tpe``, ``nsga2``, or at ``random``.
        population: Number of trials of one generation of ``nsga2``. The first one is at random.
        stop: Whether trials without hope are stopped early.
        storage: What holds the study. Default: the SQLite file ``study.db`` in ``dirpath``.
        dirpath: Folder of the trials of this worker, and of the front.
        heartbeat: Seconds between two signs of life of a trial; after twice as many without one,
            its worker counts as killed.
    """

    source: str
    ranges: tuple[Range, ...]
    objectives: tuple[Objective, ...]
    fit: tuple[str, ...] = ()
    name: str = "search"
    trials: int = 30
    sampler: Sampler = "tpe"
    population: int = 10
    stop: bool = True
    storage: str | None = None
    dirpath: str = "search"
    heartbeat: int = 60

    def with_words(self, **words: Any) -> Settings:
        """Return the settings, with those of the command line that are not None."""
        found = replace(self, **{name: given for name, given in words.items() if given is not None})
        with named("the command line"):
            _check({name: value for name, value in asdict(found).items() if name in CHECKS})
            _check_generations(found)
        return found


def _whole(smallest: int) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return None if whole and value >= smallest else f"a whole number, {smallest} or more"

    return check


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a text"


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _sampler(value: Any) -> str | None:
    names = get_args(Sampler)
    return None if value in names else f"one of {', '.join(names)}"


#: By name of a setting, what says what it should be; None if it is that.
CHECKS: dict[str, Callable[[Any], str | None]] = {
    "name": _text,
    "trials": _whole(1),
    "sampler": _sampler,
    "population": _whole(2),
    "stop": _flag,
    "storage": _optional_text,
    "dirpath": _text,
    "heartbeat": _whole(1),
}


def read_settings(path: str) -> Settings:
    """Return the search that a YAML file describes.

    Args:
        path: The file. Configs that it names in ``fit`` may be given from its folder.

    Raises:
        SearchError: If it cannot be read, or something in it is wrong; the message names the file
            and the key.
    """
    with named(path):
        data = _data(path)
        known = ("fit", "ranges", "objectives", *CHECKS)
        for key in data:
            if key not in known:
                near = get_close_matches(str(key), known, 1)
                hint = f"did you mean {near[0]}?" if near else f"a search has {', '.join(known)}"
                raise SearchError(f"there is no setting {key!r}: {hint}")
        ranges = read_ranges(data.pop("ranges", None))
        objectives = read_objectives(data.pop("objectives", None))
        fit = _configs(data.pop("fit", []), Path(path).parent)
        _check(data)
        data.setdefault("name", Path(path).stem)
        return Settings(path, ranges, objectives, fit, **data)


def _data(path: str) -> dict[str, Any]:
    with reading(path, SearchError, "give the YAML file of a search"):
        text = read_limited(Path(path), LARGEST, SearchError, "a search").decode("utf-8")
        check_yaml(text)
        data = yaml.safe_load(text)
    if not isinstance(data, Mapping):
        raise SearchError("expected settings such as ranges and objectives, got none")
    return dict(data)


def _configs(given: Any, folder: Path) -> tuple[str, ...]:
    """Return the configs of the fit; those that lie next to the search with their folder."""
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SearchError(f"fit: expected the configs of a fit, got {given!r}")
    return tuple(str(folder / name) if (folder / name).is_file() else name for name in names)


def _check_generations(found: Settings) -> None:
    if found.sampler == "nsga2" and found.trials <= found.population:
        raise SearchError(
            f"nsga2 draws its first {found.population} trials at random, and there are "
            f"{found.trials}: give more trials, or a smaller population"
        )


def _check(data: Mapping[str, Any]) -> None:
    for key, value in data.items():
        if expected := CHECKS[key](value):
            raise SearchError(f"{key}: expected {expected}, got {value!r}")
