"""Versions are compared with the bounds that the package declares."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from lit_compress.doctor import versions
from lit_compress.doctor.finding import joined


def install(monkeypatch: pytest.MonkeyPatch, name: str, found: str | None) -> None:
    def fake(asked: str) -> str:
        if asked != name:
            return version(asked)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(versions, "version", fake)


def test_the_installed_versions_are_fine() -> None:
    (answer,) = versions.check_versions()
    assert answer.verdict == "fine"
    assert f"torch {version('torch')}" in answer.found


@pytest.mark.parametrize(
    ("name", "installed", "words"),
    [
        ("lightning", "2.6.2", "malware"),
        ("lightning", "2.6.3", "malware"),
        ("torch", "2.9.1", ">=2.10"),
        ("jsonargparse", "5.0.0", "<5"),
        ("onnxruntime", None, "not installed"),
    ],
)
def test_a_version_out_of_bounds_is_an_error(
    name: str, installed: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, name, installed)
    found = joined("versions", versions.check_versions())
    assert found.verdict == "error"
    assert name in found.found
    assert words in found.found
    assert "pip install" in found.remedy


NUMBERS = st.lists(st.integers(0, 30), min_size=1, max_size=3).map(lambda n: ".".join(map(str, n)))
BOUNDS = st.lists(
    st.tuples(st.sampled_from([">=", "<=", "==", "!=", "<", ">"]), NUMBERS).map("".join), max_size=3
)


@given(NUMBERS, BOUNDS)
def test_bounds_mean_what_pip_means(installed: str, bounds: list[str]) -> None:
    text = ",".join(bounds)
    assert versions._is_within(installed, text) == SpecifierSet(text).contains(installed)
