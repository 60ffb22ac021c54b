"""Whole measurements of small files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.conftest import model, square
from lit_compress.benchmark import Options, run, run_benchmark
from lit_compress.errors import InvalidArgumentError

EXAMPLE = Path(__file__).parents[2] / "examples/digits_int8"
# jsonargparse 4.49 and later, of calls that Lightning 2.6 makes
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
BRIEF = Options(rounds=10, memory=False)
#: Imports all that files need, and measures one, where torch must not be imported.
FILES = """
import sys
import lit_compress.cli
from lit_compress.benchmark import Options, limit, run_benchmark
limit.SIZES, limit.SECONDS = (64,), 0.0
found = run_benchmark(sys.argv[1], options=Options(rounds=10, memory=False))
assert lit_compress.cli.main(["benchmark", sys.argv[1] + "x"]) == 2
print(found.rows[0].macs, [name for name in ("torch", "lightning", "onnx") if name in sys.modules])
"""


def test_64_times_the_layers_are_not_faster(small: Path, large: Path) -> None:
    found = run_benchmark(small, large, BRIEF)
    first, second = found.rows
    assert first.seconds < second.seconds
    assert first.speedups[0].ratio > 1
    assert first.macs == 64 * 64
    assert second.macs == 64 * first.macs
    assert run_benchmark(large, small, BRIEF).rows[0].speedups[0].ratio < 1


def test_a_row_for_each_batch_and_number_of_threads(small: Path) -> None:
    options = Options(batches=(1, 8), threads=(1, 2), rounds=10, memory=False)
    found = run_benchmark(small, small, options)
    assert [(row.threads, row.batch, len(row.speedups)) for row in found.rows] == [
        (1, 1, 1),
        (1, 1, 0),
        (1, 8, 1),
        (1, 8, 0),
        (2, 1, 1),
        (2, 1, 0),
        (2, 8, 1),
        (2, 8, 0),
    ]
    assert [limit.threads for limit in found.limits] == [1, 2]
    assert {limit.kind for limit in found.limits} == {"float32"}


def test_the_share_is_the_work_by_the_limit(small: Path) -> None:
    found = run_benchmark(small, options=Options(batches=(8,), rounds=10, memory=False))
    (row,), (limit,) = found.rows, found.limits
    assert row.macs is not None
    seconds = 8 * row.macs / limit.macs_per_second
    assert row.limit_seconds == pytest.approx(seconds)
    assert row.share == pytest.approx(seconds / row.seconds)
    assert row.int8_macs == 0


def test_an_artefact_is_measured_in_int8() -> None:
    found = run_benchmark(EXAMPLE, options=BRIEF)
    assert [limit.kind for limit in found.limits] == ["int8"]
    assert found.rows[0].macs == found.rows[0].int8_macs > 0
    assert found.rows[0].inputs == "stored inputs"


def test_a_checkpoint_beside_an_artefact(tmp_path: Path) -> None:
    checkpoint = Path(__file__).parents[1] / "golden/files/checkpoints/command_line.ckpt"
    found = run_benchmark(checkpoint, options=BRIEF)
    assert [(row.kind, row.runtime) for row in found.rows] == [("checkpoint", "pytorch")]
    with pytest.raises(InvalidArgumentError, match="examples have the same shape"):
        run_benchmark(EXAMPLE, tmp_path / square_file(tmp_path, 3), BRIEF)


def square_file(folder: Path, size: int, batch: str = "batch") -> str:
    (folder / "square.onnx").write_bytes(square(size, batch))
    return "square.onnx"


def test_a_figure_that_cannot_be_had_is_absent_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "einsum.onnx"
    path.write_bytes(
        model(
            "net (float[batch, 2] x) => (float[batch, 2] y) <float[2, 2] w = {1, 2, 3, 4}> "
            '{ y = Einsum <equation = "ij,jk->ik"> (x, w) }'
        )
    )
    found = run_benchmark(path, options=BRIEF)
    (row,) = found.rows
    assert row.macs is row.share is row.peak_bytes is None
    assert row.absent == {
        "share": "the MACs of its operator Einsum are not counted",
        "peak_bytes": "it was not asked for",
    }
    assert found.limits == ()


def test_a_batch_that_a_file_does_not_take_is_refused_before_anything_is_timed(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "time_rows", lambda *_: pytest.fail("it was timed"))
    path = tmp_path / square_file(tmp_path, 64, "4")
    with pytest.raises(InvalidArgumentError, match="takes batches of 4 alone"):
        run_benchmark(small, path, Options(batches=(1,), memory=False))


def test_the_only_batch_of_a_file_is_the_default(tmp_path: Path, small: Path) -> None:
    path = tmp_path / square_file(tmp_path, 64, "4")
    assert {row.batch for row in run_benchmark(small, path, BRIEF).rows} == {4}


def test_a_batch_inside_the_graph_is_refused_before_anything_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first axis is free, and a reshape in the middle takes one row alone."""
    monkeypatch.setattr(run, "time_rows", lambda *_: pytest.fail("it was timed"))
    path = tmp_path / "inside.onnx"
    path.write_bytes(
        model(
            "net (float[batch, 4] x) => (float[1, 4] y) <int64[2] s = {1, 4}> { y = Reshape(x, s) }"
        )
    )
    with pytest.raises(ValueError, match="cannot compute the outputs"):
        run_benchmark(path, options=Options(batches=(2,), memory=False))


def test_more_threads_than_cores_are_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.os, "cpu_count", lambda: 1)
    found = run_benchmark(small, options=Options(threads=(2,), rounds=10, memory=False))
    assert "warning: 2 threads on 1 cores: threads wait for each other" in found.notes


def test_a_busy_machine_is_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a training, two threads of PyTorch took a hundred times as long, without a word."""
    monkeypatch.setattr(run.os, "cpu_count", lambda: 2)
    for load, said in ((0.1, 0), (2.0, 1)):
        monkeypatch.setattr(run.os, "getloadavg", lambda load=load: (load, load, load))
        notes = run_benchmark(small, options=BRIEF).notes
        assert sum("the load of this machine was 2.0" in note for note in notes) == said


def test_files_need_neither_torch_nor_lightning() -> None:
    """Also after an error: its line is printed."""
    command = [sys.executable, "-c", FILES, str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" []\n")
    assert "error: there is no file or folder" in done.stderr
