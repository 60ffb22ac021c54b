"""The file of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_compress.errors import SearchError
from lit_compress.search.settings import read_settings

from .told import OBJECTIVES, WIDTH

WHOLE: dict[str, Any] = {"ranges": {"model.width": [1, 9]}, "objectives": ["val_acc", "bytes"]}


def written(folder: Path, content: Any) -> str:
    path = folder / "digits.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").touch()
    more = {"fit": ["fit.yaml", "quantize.yaml"], "sampler": "nsga2", "trials": 40}
    found = read_settings(written(tmp_path, WHOLE | more))
    assert found.ranges == (WIDTH,)
    assert found.objectives == OBJECTIVES
    assert found.fit == (str(tmp_path / "fit.yaml"), "quantize.yaml")
    assert (found.name, found.sampler, found.trials, found.stop) == ("digits", "nsga2", 40, True)


def test_words_of_the_command_line_count_more(tmp_path: Path) -> None:
    found = read_settings(written(tmp_path, WHOLE | {"trials": 40}))
    changed = found.with_words(trials=3, name=None, dirpath="elsewhere")
    assert (changed.trials, changed.name, changed.dirpath) == (3, "digits", "elsewhere")
    with pytest.raises(SearchError, match="the command line: trials: expected a whole number"):
        found.with_words(trials=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WHOLE | {"trails": 3}, r"digits\.yaml: there is no setting 'trails': did you mean trials"),
        (WHOLE | {"xyz": 3}, "there is no setting 'xyz': a search has fit, ranges"),
        ({"objectives": ["bytes"]}, "ranges: name the settings that may vary"),
        ({"ranges": {"a": [1, 2]}}, "objectives: expected a list"),
        (WHOLE | {"trials": True}, "trials: expected a whole number, 1 or more, got True"),
        (WHOLE | {"sampler": "grid"}, "sampler: expected one of tpe, nsga2, random, got 'grid'"),
        (WHOLE | {"stop": "no"}, "stop: expected true or false"),
        (WHOLE | {"name": ""}, "name: expected a text"),
        (WHOLE | {"storage": 3}, "storage: expected a text, got 3"),
        (WHOLE | {"fit": [3]}, "fit: expected the configs of a fit"),
        ("", "expected settings such as ranges and objectives, got none"),
        ("a: [", "is no YAML|cannot be read|expected"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        read_settings(written(tmp_path, content))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(SearchError, match=r"none\.yaml"):
        read_settings("none.yaml")


def test_generations_that_never_come(tmp_path: Path) -> None:
    """NSGA-II draws its first generation at random: 30 trials of 50 were a random search."""
    found = read_settings(written(tmp_path, WHOLE | {"sampler": "nsga2", "population": 50}))
    with pytest.raises(SearchError, match="first 50 trials at random, and there are 30"):
        found.with_words()
