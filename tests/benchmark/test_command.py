"""The verb ``benchmark``."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from benchmark.conftest import square
from benchmark.test_result import SCHEMA
from lit_compress.cli import main

EXAMPLE = str(Path(__file__).parents[2] / "examples/digits_int8")
BRIEF = ["--rounds", "10", "--no-memory"]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of one product, and one of 64."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.onnx").write_bytes(square(64))
    (tmp_path / "large.onnx").write_bytes(square(64, copies=64))
    (tmp_path / "fixed.onnx").write_bytes(square(64, batch="4"))
    (tmp_path / "other.onnx").write_bytes(square(8))
    (tmp_path / "text.txt").write_text("no network\n")
    return tmp_path


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", EXAMPLE, *BRIEF, "--batch", "1", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4] for line in lines[2:4]] == [
        ["onnxruntime", "1", "1"],
        ["onnxruntime", "32", "1"],
    ]
    assert f"inputs: stored inputs ({EXAMPLE})" in " ".join(lines)


def test_the_memory_of_an_artefact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", EXAMPLE, "--rounds", "10", "--json", "-"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert 1 << 20 < row["peak_bytes"] < 200 << 20


def test_json(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "small.onnx", "large.onnx", *BRIEF, "--json"]
    assert main([*words, "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert main([*words, "made/found.json"]) == 0
    assert capsys.readouterr().out.startswith("file ")
    for found in (printed, json.loads((pair / "made/found.json").read_text())):
        jsonschema.validate(found, SCHEMA)
        assert [row["file"] for row in found["rows"]] == ["small.onnx", "large.onnx"]


def test_at_least(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "small.onnx", "large.onnx", *BRIEF, "--at-least", "0.01"]) == 0
    assert not capsys.readouterr().err
    assert main(["benchmark", "large.onnx", "small.onnx", *BRIEF, "--at-least", "2.0"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("file ")
    assert captured.err.startswith("not fast enough: large.onnx, onnxruntime, batch 1, 1 thread: ")
    assert captured.err.endswith("below 2x\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "benchmark: the following arguments are required: A"),
        ("nothing", "there is no file or folder nothing"),
        ("text.txt", "text.txt cannot be read"),
        (".", ". is not an artefact: it has no card.json"),
        ("small.onnx --batch 0", "batch must be at least 1, got 0"),
        ("small.onnx --batch x", "benchmark: argument --batch: invalid int value: 'x'"),
        ("small.onnx --threads 0", "threads must be at least 1, got 0"),
        ("small.onnx --rounds 3", "rounds must be at least 10"),
        ("small.onnx --seconds 0", "expected a number of seconds, above 0, got '0'"),
        ("small.onnx --runtime tflite", "argument --runtime: invalid choice: 'tflite'"),
        ("small.onnx --at-least 2", "--at-least compares A with B: give a second network"),
        ("small.onnx small.onnx --at-least no", "how many times faster A must be"),
        ("small.onnx --shape 3,x", "expected the sizes of one example"),
        ("small.onnx --shape 3,8", "takes examples of shape 64 as x"),
        ("small.onnx --json .", "--json . cannot be written"),
        ("small.onnx --json text.txt/found.json", "cannot be written"),
        ("small.onnx other.onnx", "only networks whose examples have the same shape"),
        ("small.onnx fixed.onnx --batch 1", "fixed.onnx takes batches of 4 alone"),
        ("small.onnx --nothing", "unrecognized arguments: --nothing"),
    ],
)
def test_words_that_are_wrong(
    pair: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *words.split()]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", "--help"])
    assert "--at-least X" in capsys.readouterr().out
