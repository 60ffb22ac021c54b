"""Measurements are remembered, and a damaged or unwritable file only costs time."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress.timing.remembered import Remembered


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lit_compress" / "times.json"


def test_values_are_there_for_the_next_process(cache: Path) -> None:
    Remembered("times", most=3).add({"a": 1.5})
    Remembered("times", most=3).add({"b": 2.5})
    assert Remembered("times", most=3).read() == {"a": 1.5, "b": 2.5}
    assert cache.is_file()


def test_the_oldest_values_are_forgotten(cache: Path) -> None:
    values = Remembered("times", most=2)
    for number, name in enumerate("abc"):
        values.add({name: number})
    assert values.read() == {"b": 1, "c": 2}


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_file_has_no_values(cache: Path, content: str) -> None:
    cache.parent.mkdir()
    cache.write_text(content)
    values = Remembered("times", most=2)
    assert values.read() == {}
    values.add({"a": 1})
    assert values.read() == {"a": 1}


def test_a_folder_that_cannot_be_made_gets_no_file(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    Remembered("times", most=2).add({"a": 1})
    assert Remembered("times", most=2).read() == {}


def test_keys_differ_with_each_part() -> None:
    keys = {Remembered.key(*parts) for parts in ([1, "a"], [1, "b"], [[1], "a"], [])}
    assert len(keys) == 4
    assert Remembered.key({"a": 1, "b": 2}) == Remembered.key({"b": 2, "a": 1})
