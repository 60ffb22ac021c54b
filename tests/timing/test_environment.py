from __future__ import annotations

import json
import os
import platform
from importlib import import_module
from pathlib import Path

import numpy
import pytest
import torch

from lit_compress import __version__
from lit_compress.measure import environment

HOME = import_module("lit_compress.timing.environment")


def test_versions_and_machine() -> None:
    found = environment()
    assert found["python"] == platform.python_version()
    assert str(found["torch"]).split("+")[0] == torch.__version__.split("+")[0]
    assert found["numpy"] == numpy.__version__
    assert found["lit-compress"] == __version__
    assert found["cores"] == os.cpu_count()
    assert found["processor"]
    assert json.loads(json.dumps(found)) == found


def test_a_package_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = ("torch", "a-package-nobody-has")
    monkeypatch.setattr(HOME, "PACKAGES", packages)
    assert "a-package-nobody-has" not in environment()
    assert "torch" in environment()


@pytest.mark.parametrize(
    ("cpuinfo", "own", "processor"),
    [
        ("a: 1\nmodel name\t: Fast: 9000 @ 2 GHz\nmodel name : Other\n", "x", "Fast: 9000 @ 2 GHz"),
        ("BogoMIPS: 50\n", "arm", "arm"),
        ("", "", "unknown"),
        (None, "i386", "i386"),
        (None, "", "unknown"),
    ],
)
def test_processor(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, own: str, processor: str
) -> None:
    def read(path: Path, *args: object, **options: object) -> str:
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", read)
        patch.setattr(platform, "processor", lambda: own)
        patch.setattr(HOME, "PACKAGES", ())
        found = environment()
    assert found["processor"] == processor
