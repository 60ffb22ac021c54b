"""The table and the notes below it."""

from __future__ import annotations

from dataclasses import replace

from lit_compress.benchmark import Benchmark, Measured
from lit_compress.benchmark.limit import Limit
from lit_compress.timing.intervals import Speedup

ROW = Measured(
    "a.onnx",
    "ONNX file",
    "onnxruntime",
    batch=8,
    threads=2,
    rounds=60,
    seconds=0.0012345,
    interval=(0.0012, 0.13),
    examples_per_second=6480.4,
    inputs="random numbers",
    share=0.0251,
    peak_bytes=20 * 2**20,
)


def test_one_row() -> None:
    limit = Limit("onnxruntime", 2, "int8", 4e11)
    lines = str(Benchmark((ROW,), (limit,), {}, ("a note",))).splitlines()
    assert lines[0].split()[:4] == ["file", "runtime", "batch", "threads"]
    cells = ["a.onnx", "onnxruntime", "8", "2", "1.23", "1.20 to 130", "6,480", "20.0 MiB", "2.5%"]
    assert lines[2].split() == " ".join(cells).split()
    said = "limit of this machine, int8, onnxruntime, 2 threads: 400 GMAC/s"
    assert lines[3:] == ["a note", said]


def test_what_is_absent_is_said_once() -> None:
    absent = replace(ROW, share=None, absent={"share": "no MACs"})
    lines = str(Benchmark((absent, absent, replace(absent, file="b")), (), {})).splitlines()
    assert lines[2].split()[-1] == "-"
    assert lines[5:] == ["no 'of limit' of a.onnx, b: no MACs"]


def test_comparisons() -> None:
    same = replace(ROW, speedups=(Speedup("onnxruntime", 1.01, (0.98, 1.04), False),))
    both = (Speedup("a", 12.34, (11, 13), True), Speedup("b", 0.0321, (0.03, 0.04), True))
    lines = str(Benchmark((same, replace(ROW, speedups=both), ROW), (), {})).splitlines()
    assert lines[0].endswith("99 % interval")
    assert lines[2].split()[-4:] == ["same", "0.980", "to", "1.04"]
    assert "12.3x / 0.0321x" in lines[3]
    assert lines[4].split()[-2:] == ["-", "-"]
