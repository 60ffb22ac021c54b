from __future__ import annotations

import time

import pytest
import yaml

from lit_compress.cli import PACKAGED
from lit_compress.files.yaml_text import check_yaml


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize("levels", [6, 10, 200])
def test_a_bomb_ends_at_once(levels: int) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match="more than 100,000 values"):
        check_yaml(bomb(levels))
    assert time.process_time() - start < 1


def test_aliases_are_allowed() -> None:
    check_yaml(bomb(4))
    check_yaml("a: &a {b: 1}\nc: *a\nd: *a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1, *a]", "line 1: the alias 'a' stands within itself"),
        ("a: 1\nb: " + "[" * 70 + "]" * 70, "line 2: it is nested deeper"),
        ("#" * (1 << 21), "larger than 1,048,576 bytes"),
    ],
)
def test_what_could_exhaust_a_reader_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_yaml(text)


def test_what_is_not_yaml_is_left_to_its_reader() -> None:
    check_yaml("a: [")
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load("a: [")


def test_the_packaged_configs_pass() -> None:
    paths = sorted(PACKAGED.glob("*.yaml"))
    assert len(paths) > 5
    for path in paths:
        check_yaml(path.read_bytes())
