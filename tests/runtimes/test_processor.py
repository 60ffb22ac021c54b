"""VNNI is missed only where the processor says what it can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress.runtimes import processor


@pytest.mark.parametrize(
    ("machine", "flags", "lacks"),
    [
        ("x86_64", "flags : fpu avx2 avx512f", True),
        ("x86_64", "flags : fpu avx512_vnni", False),
        ("AMD64", "flags : avx_vnni", False),
        ("x86_64", "model name : unknown", False),
        ("aarch64", "flags : fpu", False),
        ("x86_64", None, False),
    ],
)
def test_processors(
    machine: str,
    flags: str | None,
    lacks: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    assert processor.lacks_vnni() is lacks
