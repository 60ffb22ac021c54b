"""The program of the process whose memory is measured, in this process."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from lit_compress.benchmark import memory_program
from lit_compress.benchmark.memory import Job
from lit_compress.benchmark.memory_program import main, peak_bytes
from lit_compress.benchmark.options import ALL_RUNTIMES

# jsonargparse 4.49 and later, of calls that Lightning 2.6 makes
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def given(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asdict(job))))


@pytest.mark.parametrize("batch", [0, 2])
def test_it_prints_bytes(
    small: Path, batch: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, Job(str(small), "onnxruntime", 1, batch))
    assert main() == 0
    assert int(capsys.readouterr().out) > 1 << 20


def test_a_checkpoint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[1] / "golden/files/checkpoints/command_line.ckpt"
    for batch in (0, 1):
        given(monkeypatch, Job(str(path), "pytorch", 1, batch))
        assert main() == 0
        assert int(capsys.readouterr().out) > 1 << 20


def test_each_runtime_has_its_imports() -> None:
    """ExecuTorch's 700 MiB of imported torch were counted as those of a network."""
    assert set(memory_program.MODULES) == set(ALL_RUNTIMES)


def test_linux_says_the_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text("VmPeak:\t 9000 kB\nVmHWM:\t    2048 kB\n")
    monkeypatch.setattr(memory_program, "STATUS", tmp_path / "status")
    assert peak_bytes() == 2048 * 1024


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd", 1024)])
def test_other_systems_say_it_in_their_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, unit: int
) -> None:
    resource = pytest.importorskip("resource")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(memory_program, "STATUS", tmp_path / "nothing")
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_bytes() == pytest.approx(peak * unit, rel=0.2)


def test_a_system_that_does_not_say(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(memory_program, "STATUS", tmp_path / "nothing")
    monkeypatch.setitem(sys.modules, "resource", None)
    given(monkeypatch, Job(str(small), "onnxruntime", 1, 1))
    assert main() == 1
    assert "does not tell" in capsys.readouterr().err
