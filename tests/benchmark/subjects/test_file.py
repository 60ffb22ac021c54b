"""Artefacts and ONNX files that are timed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmark.conftest import model
from lit_compress import pack
from lit_compress.artifact import read_card
from lit_compress.benchmark.subjects.file import FileSubject, artefact_subject, file_subject
from lit_compress.benchmark.work import UncountedError
from lit_compress.errors import ArtifactError
from lit_compress.runtimes.onnx import open_engine

EXAMPLE = Path(__file__).parents[3] / "examples/digits_int8"


def test_an_artefact_runs_its_stored_inputs() -> None:
    subject = artefact_subject(EXAMPLE)
    assert [subject.inputs_text(batch) for batch in (1, 32, 33)] == [
        "stored inputs",
        "stored inputs",
        "random numbers",
    ]
    with np.load(EXAMPLE / "replay.npz") as stored:
        images = stored["input_0"]
    (found,) = subject.runner("onnxruntime", 1, 4)()  # type: ignore[misc]
    (again,) = open_engine(EXAMPLE / "model.onnx", "onnxruntime", 1).run([images[:4]])
    np.testing.assert_array_equal(found, again)


def test_a_packed_artefact_is_the_same_network(tmp_path: Path) -> None:
    pack(EXAMPLE, tmp_path / "packed")
    whole, packed = artefact_subject(EXAMPLE), artefact_subject(tmp_path / "packed")
    assert packed.work() == whole.work()
    assert packed.slots == whole.slots
    assert file_subject(tmp_path / "packed" / "model.packed").slots == whole.slots


def test_the_macs_are_those_on_the_card() -> None:
    subject = artefact_subject(EXAMPLE)
    assert subject.work().total == subject.macs == read_card(EXAMPLE).variant("int8").macs


@pytest.mark.parametrize("name", ["model.onnx", "replay.npz"])
def test_a_damaged_artefact_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(EXAMPLE, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="another SHA-256"):
        artefact_subject(folder)


def test_token_numbers_are_rows_of_the_table() -> None:
    values = ", ".join(map(str, range(20)))
    content = model(
        "net (int64[batch, 50] ids) => (float[batch, 50, 2] y) "
        f"<float[10, 2] table = {{{values}}}> {{ y = Gather(table, ids) }}"
    )
    subject = FileSubject("tokens", "ONNX file", content)
    (found,) = subject.runner("onnxruntime", 1, 4)()  # type: ignore[misc]
    assert set(np.unique(found[..., 0] // 2)) == set(range(10))


def test_an_artefact_without_int8_file(tmp_path: Path) -> None:
    card = json.loads((EXAMPLE / "card.json").read_text())
    card.pop("digest", None)
    card["files"] = {}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match=r"has no model\.onnx"):
        artefact_subject(tmp_path)


def test_an_artefact_without_a_file_for_a_runtime() -> None:
    with pytest.raises(ArtifactError, match="has no file for executorch: write one"):
        artefact_subject(EXAMPLE).runtimes(["executorch"])
    with pytest.raises(ArtifactError, match="executorch reads no ONNX file"):
        file_subject(EXAMPLE / "model.onnx").runtimes(["executorch"])


def test_no_limit_is_measured_in_a_runtime_that_reads_no_onnx() -> None:
    with pytest.raises(UncountedError, match="no limit is measured in litert"):
        artefact_subject(EXAMPLE).limit("litert", 1, "int8")
