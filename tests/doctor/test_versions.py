"""Versions are compared with the bounds that the package declares."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

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


def test_the_bounds_of_other_pythons_and_extras_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = ['torch >=999; python_version < "3.0"', 'absent; extra == "hub"', "torch >=2"]
    monkeypatch.setattr(versions, "requires", lambda _: lines)
    (answer,) = versions.check_versions()
    assert answer.verdict == "fine"


@pytest.mark.parametrize("installed", ["2.10.0+cpu", "2.10.0a0+gitabc", "2.10.0rc1", "2.10"])
def test_a_build_of_the_floor_is_within_its_bounds(
    installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "torch", installed)
    assert joined("versions", versions.check_versions()).verdict == "fine"
