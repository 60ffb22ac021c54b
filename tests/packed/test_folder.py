"""A packed artefact is an artefact."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact.test_read import NEEDED

from lit_compress import load, pack
from lit_compress.artifact import read_card, sha256, sqnr_db, write_card
from lit_compress.artifact.fidelity import sketch_db
from lit_compress.artifact.replay import read_replay
from lit_compress.errors import AccuracyError, ArtifactError, InvalidArgumentError
from lit_compress.packed.model import pack_onnx, unpack
from lit_compress.runtimes import FormatFile, Port

EXAMPLE = Path(__file__).parents[2] / "examples/digits_int8"


def with_float(tmp_path: Path) -> Path:
    """An artefact that has a float network, too; here it is the same one."""
    folder = tmp_path / "both"
    shutil.copytree(EXAMPLE, folder)
    shutil.copyfile(folder / "model.onnx", folder / "model-fp32.onnx")
    card = read_card(folder)
    int8 = card.variant("int8")
    files = {**card.files, "model-fp32.onnx": sha256(folder / "model-fp32.onnx")}
    plain = replace(int8, name="pruned onnx", file="model-fp32.onnx")
    write_card(folder, replace(card, variants=(*card.variants, plain), files=files))
    return folder


def test_8_bits_compute_the_same(tmp_path: Path) -> None:
    (file,) = pack(EXAMPLE, tmp_path / "packed")
    packed = tmp_path / "packed/model.packed"
    assert unpack(packed.read_bytes()) == (EXAMPLE / "model.onnx").read_bytes()
    assert (file.name, file.before) == ("model.packed", 483_327)
    assert file.after == packed.stat().st_size < file.before
    assert file.sqnr_db is None
    one, other = load(EXAMPLE), load(tmp_path / "packed")
    inputs, _ = read_replay(EXAMPLE / "replay.npz")
    np.testing.assert_array_equal(one(*inputs), other(*inputs))
    assert other.classes == one.classes
    before, after = (
        read_card(EXAMPLE).variant("int8"),
        read_card(tmp_path / "packed").variant("int8"),
    )
    assert after == replace(before, file="model.packed", bytes=file.after)


def test_4_bits_are_measured(tmp_path: Path) -> None:
    (file,) = pack(EXAMPLE, tmp_path / "packed", bits=4)
    model = load(tmp_path / "packed")
    inputs, expected = read_replay(EXAMPLE / "replay.npz")
    measured = sqnr_db(expected[0], model(*inputs))
    assert file.sqnr_db == measured
    assert file.sqnr_before_db == sqnr_db(expected[0], load(EXAMPLE)(*inputs))
    assert 10 < measured < file.sqnr_before_db
    assert model.card is not None
    before, int8 = read_card(EXAMPLE).variant("int8"), model.card.variant("int8")
    assert int8.fidelity is not None
    assert int8.fidelity.replay_db == int8.fidelity.sqnr_db == measured
    assert int8.fidelity.n == len(expected[0])
    assert sketch_db(int8.fidelity.replay_sketch, [model(*inputs)]) > 100
    assert sketch_db(int8.fidelity.replay_sketch, [load(EXAMPLE)(*inputs)]) < 40
    assert (int8.metric, int8.latency) == (None, None)
    assert int8.note is not None
    assert "4 bits" in int8.note
    assert 0 < int8.nonzero < before.nonzero


def test_a_limit_on_4_bits(tmp_path: Path) -> None:
    target = tmp_path / "packed"
    with pytest.raises(AccuracyError, match=r"below min_sqnr_db=30 \(\d+\.\d dB with 8 bits\)"):
        pack(EXAMPLE, target, bits=4, min_sqnr_db=30)
    assert not target.exists()
    assert pack(EXAMPLE, target, bits=4, min_sqnr_db=10)[0].sqnr_db is not None


def test_both_networks(tmp_path: Path) -> None:
    files = pack(with_float(tmp_path), tmp_path / "packed", weights="all", bits=4)
    assert [file.name for file in files] == ["model.packed", "model-fp32.packed"]
    assert [file.sqnr_db is None for file in files] == [False, True]
    assert load(tmp_path / "packed").card == load(tmp_path / "packed", weights="fp32").card
    (only,) = pack(tmp_path / "both", tmp_path / "float", weights="fp32")
    assert set(read_card(tmp_path / "float").files) == {only.name, "replay.npz"}
    assert load(tmp_path / "float", weights="fp32")
    with pytest.raises(ArtifactError, match=r"has no model\.onnx"):
        load(tmp_path / "float")


def test_a_packed_artefact_is_packed_again(tmp_path: Path) -> None:
    pack(EXAMPLE, tmp_path / "8")
    pack(tmp_path / "8", tmp_path / "again")
    pack(tmp_path / "8", tmp_path / "4", bits=4)
    pack(EXAMPLE, tmp_path / "direct", bits=4)
    same = [(tmp_path / name / "model.packed").read_bytes() for name in ("8", "again")]
    assert same[0] == same[1]
    assert read_card(tmp_path / "4").files == read_card(tmp_path / "direct").files


def test_float_weights_are_left_out(tmp_path: Path) -> None:
    folder = with_float(tmp_path)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "other.txt").write_text("kept")
    card = read_card(folder)
    more = {name: sha256(folder / name) for name in ("model.safetensors", "other.txt")}
    write_card(folder, replace(card, files={**card.files, **more}))
    pack(folder, tmp_path / "packed")
    names = {path.name for path in (tmp_path / "packed").iterdir()}
    assert names == {"card.json", "model.packed", "replay.npz", "other.txt"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 3}, "bits must be 8 or 4"),
        ({"bits": True}, "bits must be 8 or 4"),
        ({"weights": "int4"}, "weights must be one of int8, fp32, all"),
        ({"bits": 4, "weights": "fp32"}, "bits=4 rounds the int8 network"),
        ({"min_sqnr_db": 20}, "min_sqnr_db limits bits=4"),
        ({"bits": 4, "min_sqnr_db": float("nan")}, "min_sqnr_db must be a finite number"),
    ],
)
def test_arguments_that_cannot_be(tmp_path: Path, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        pack(EXAMPLE, tmp_path / "packed", **arguments)
    assert not (tmp_path / "packed").exists()


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not an artefact"):
        pack(tmp_path, tmp_path / "packed")
    with pytest.raises(ArtifactError, match=r"has no model-fp32\.onnx"):
        pack(EXAMPLE, tmp_path / "packed", weights="fp32")
    with pytest.raises(InvalidArgumentError, match="is the artefact itself"):
        pack(EXAMPLE, EXAMPLE)
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copyfile(EXAMPLE / "model.onnx", folder / "model.onnx")
    card = read_card(EXAMPLE)
    write_card(folder, replace(card, files={"model.onnx": card.files["model.onnx"]}))
    with pytest.raises(ArtifactError, match=r"has no replay\.npz"):
        pack(folder, tmp_path / "packed", bits=4)
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="has another SHA-256"):
        pack(folder, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_a_damaged_file_with_a_right_hash(tmp_path: Path) -> None:
    """Who changes the file can change the card."""
    pack(EXAMPLE, tmp_path / "packed")
    path = tmp_path / "packed/model.packed"
    for data in (path.read_bytes()[:-9], b"\x93LITPACK", pack_onnx(b"")):
        path.write_bytes(data)
        card = json.loads((tmp_path / "packed/card.json").read_text())
        card["files"]["model.packed"] = sha256(path)
        card.pop("digest", None)
        (tmp_path / "packed/card.json").write_text(json.dumps(card))
        with pytest.raises(ArtifactError, match=r"model\.packed"):
            load(tmp_path / "packed")


@pytest.mark.parametrize("bits", [8, 4])
def test_loading_needs_numpy_and_onnxruntime_alone(tmp_path: Path, bits: Any) -> None:
    pack(EXAMPLE, tmp_path / "packed", bits=bits)
    script = NEEDED + "import lit_compress\nprint(lit_compress.load(sys.argv[1]).input_shape)\n"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "packed")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "(1, 32, 32)"


def test_openvino_runs_it(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pack(EXAMPLE, tmp_path / "packed")
    assert load(tmp_path / "packed", runtime="openvino").runtime == "openvino"


def test_files_of_other_formats_are_not_kept(tmp_path: Path) -> None:
    """They would stay those of 8 bits where the network has 4."""
    artifact = tmp_path / "artifact"
    shutil.copytree(EXAMPLE, artifact)
    card = read_card(artifact)
    (artifact / "model-b1.pte").write_bytes(b"a file")
    port = Port("x", (1,), "float32", True)
    file = FormatFile("executorch", ("model-b1.pte",), 6, (port,), (port,), 1)
    variants = tuple(replace(v, formats=(file,)) for v in card.variants)
    files = {**card.files, "model-b1.pte": sha256(artifact / "model-b1.pte")}
    write_card(artifact, replace(card, variants=variants, files=files))
    pack(artifact, tmp_path / "packed", bits=4)
    packed = read_card(tmp_path / "packed")
    assert "model-b1.pte" not in packed.files
    assert not any(variant.formats for variant in packed.variants)
