"""The page shows what the script found, and the script sees wrong classes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lit_compress.runtimes import processor as this_processor
from processors import run
from processors.artefacts import Artefact, digits
from processors.processors import PROCESSORS, is_emulated_here, write_prefix

BY_MODEL = {one.model: one for one in PROCESSORS}


def test_the_table_of_the_page_is_that_of_the_results() -> None:
    rows = run.read_rows()
    assert run.table(rows) in run.PAGE.read_text("utf-8")
    assert {row.processor for row in rows} == {one.name for one in PROCESSORS}
    assert {row.format for row in rows} == set(run.RUNTIMES)
    assert not [row for row in rows if row.is_bad()]


@pytest.mark.parametrize(
    ("same", "said", "bad"),
    [
        (1.0, "accepted", False),
        (0.999, "accepted", False),
        (0.998, "accepted", True),
        (0.5, "litert computes other outputs", False),
        (None, "ended with -4", True),
    ],
)
def test_other_classes_without_a_refusal_are_bad(same: float | None, said: str, bad: bool) -> None:
    sqnr = None if same is None else 30.0
    assert run.Row("p", "onnx", "digits", same, sqnr, sqnr, said).is_bad() is bad


def test_rows_of_a_later_call_win() -> None:
    first, second = (one.name for one in PROCESSORS[:2])
    early = [run.Row(first, name, "a", 1.0, 200.0, 0.0, "accepted") for name in ("onnx", "litert")]
    other = run.Row(second, "onnx", "a", 1.0, 200.0, 0.0, "accepted")
    gone = run.Row("no longer emulated", "onnx", "a", 1.0, 200.0, 0.0, "accepted")
    late = run.Row(first, "onnx", "b", 0.5, 20.0, 9.0, "refused")
    assert run.merged([other, *early, gone], [late]) == [late, early[1], other]


@pytest.mark.parametrize("model", ["Haswell", "SandyBridge"])
def test_the_processors_of_x86_say_that_they_have_no_vnni(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prefix(BY_MODEL[model], tmp_path, None)
    monkeypatch.setattr(this_processor, "CPUINFO", tmp_path / "proc" / "cpuinfo")
    monkeypatch.setattr(this_processor.platform, "machine", lambda: "x86_64")
    assert this_processor.lacks_vnni()
    assert this_processor.processor_name() == f"{BY_MODEL[model].name} (QEMU)"


def test_a_program_that_ends_early_is_not_run(tmp_path: Path) -> None:
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((1, 3), np.float32))
    artefact = Artefact("none", tmp_path / "none", images, ("onnx",))
    words = [sys.executable, "-c", "import sys; sys.exit('no such processor')"]
    ((said, outputs),) = run.answers(words, [], "onnx", [artefact])
    assert said["said"] == "ended with 1: no such processor"
    assert outputs is None


@pytest.mark.slow
@pytest.mark.parametrize(("model", "refused"), [("Haswell", True), ("SandyBridge", False)])
def test_the_file_of_the_examples_on_another_processor(
    model: str, refused: bool, tmp_path: Path
) -> None:
    """With AVX2 and no VNNI the sums of int8 products saturate; the older kernels are exact."""
    if not is_emulated_here() or shutil.which("qemu-x86_64") is None:
        pytest.skip("needs Linux on x86-64, and qemu-x86_64: apt-get install qemu-user")
    if this_processor.lacks_vnni():
        pytest.skip("this processor has no VNNI, so the file has other outputs here as well")
    start = run.starter(tmp_path, [BY_MODEL[model]])
    given = [digits(tmp_path)]
    here = run.answers([sys.executable], [], "onnx", given)
    (row,) = run.compare(BY_MODEL[model], "onnx", given, here, start)
    assert row.same is not None
    if refused:
        assert row.same < run.SAME
        assert "This processor has no VNNI" in row.said
    else:
        assert (row.same, row.said) == (1.0, "accepted")
    assert not row.is_bad()
