"""The first process works longer than the time-out of the process group."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress.artifact import read_card

from .started import EXAMPLES, HERE, finished, left_by, output_of, start

pytestmark = pytest.mark.slow
PROGRAM = HERE / "waiting_program.py"


def ended(folder: Path, mode: str) -> tuple[int, str]:
    process = start([PROGRAM, folder, mode], TIME_OUT="4")
    output = output_of(process)
    return process.returncode, output


def test_the_others_wait_outside_of_the_time_out(tmp_path: Path) -> None:
    """After the training, the job died while the first process wrote the artefact."""
    code, output = ended(tmp_path, "waits")
    assert code == 0, output
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["done", "done"]


def test_in_a_collective_the_time_out_ends_the_job(tmp_path: Path) -> None:
    """Else the other tests would show nothing."""
    code, output = ended(tmp_path, "collective")
    assert code != 0
    assert "imed out" in output


def test_its_error_ends_all_by_name(tmp_path: Path) -> None:
    code, output = ended(tmp_path, "fails")
    assert code != 0
    assert "ZeroDivisionError: no luck" in output
    assert "ProcessError: the first process failed (it sleeps): ZeroDivisionError: no" in output


def test_its_death_ends_all(tmp_path: Path) -> None:
    code, output = ended(tmp_path, "dies")
    assert code != 0
    assert "waited for the first process (it sleeps), and cannot reach it any more" in output


def test_a_conversion_may_take_longer(tmp_path: Path) -> None:
    finished([HERE / "fit_program.py", tmp_path, "together", 2], TIME_OUT="2")
    first, second = left_by(tmp_path, 2)
    assert first == second
    metric = read_card(tmp_path / "artifact").variant("int8").metric
    assert metric is not None
    assert metric.n == EXAMPLES
