"""Files of each format version: every later version reads them, see docs/formats.md.

``make_version.py`` wrote them once. They are never made anew: a test that fails here says that
users' files no longer work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ForeignModule
from safetensors.torch import load_file

import lit_compress
from golden.make_version import fitted
from lit_compress.artifact import Card, read_card
from lit_compress.artifact.card import FORMAT_VERSION
from lit_compress.errors import ArtifactError

FOLDER = Path(__file__).parent
VERSIONS = range(1, FORMAT_VERSION + 1)
LARGEST = 200_000
#: SHA-256 of all files of a version, by version.
DIGESTS = {1: "b824e45452624db64cddcd7cc3fb53af442e8db77fe8b73a7f4367c622c61a9b"}

pytestmark = pytest.mark.parametrize("version", VERSIONS)


def files_of(version: int) -> Path:
    return FOLDER / f"version_{version}"


def expected(version: int) -> dict[str, np.ndarray]:
    with np.load(files_of(version) / "expected.npz") as file:
        return dict(file)


def near(found: np.ndarray, wanted: np.ndarray) -> None:
    """Compare outputs: machines add in another order."""
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def parts(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".json":
                content = content.replace(b"\r\n", b"\n")
            yield path.relative_to(folder).as_posix().encode() + hashlib.sha256(content).digest()


def test_the_files_are_those_that_were_made(version: int) -> None:
    found = hashlib.sha256(b"".join(parts(files_of(version)))).hexdigest()
    assert found == DIGESTS[version]
    sizes = {p.name: p.stat().st_size for p in files_of(version).rglob("*") if p.is_file()}
    assert not {name: size for name, size in sizes.items() if size > LARGEST}


def test_the_int8_file_answers_as_it_did(version: int) -> None:
    model = lit_compress.load(files_of(version) / "artefact", check=True)
    wanted = expected(version)
    found = model(wanted["images"])
    assert np.mean(found.argmax(-1) == wanted["int8"].argmax(-1)) >= 0.9
    step = np.abs(wanted["int8"]).max() / 64  # of an 8-bit output
    np.testing.assert_allclose(found, wanted["int8"], atol=2 * step)
    near(lit_compress.load(files_of(version) / "artefact", weights="fp32")(wanted["images"]),
         wanted["final"])  # fmt: skip


def test_the_card_says_what_it_said(version: int) -> None:
    card = read_card(files_of(version) / "artefact")
    assert card.format_version == version
    assert [one.name for one in card.variants] == ["dense", "pruned", "pruned onnx", "int8"]
    assert [one["callback"] for one in card.pruning] == ["FilterPruning"]
    assert len(card.history) == 5


def test_the_float_module_is_restored(version: int) -> None:
    artefact = files_of(version) / "artefact"
    module, wanted = lit_compress.restore(artefact, ForeignModule).eval(), expected(version)
    saved = load_file(artefact / "model.safetensors")
    assert all(torch.equal(saved[name], one) for name, one in module.state_dict().items())
    with torch.no_grad():
        near(module(torch.from_numpy(wanted["images"])).numpy(), wanted["final"])


def test_a_checkpoint_is_loaded(version: int) -> None:
    path, wanted = files_of(version) / "half.ckpt", expected(version)
    module = lit_compress.load_from_checkpoint(ForeignModule, path).eval()
    with torch.no_grad():
        near(module(torch.from_numpy(wanted["images"])).numpy(), wanted["half"])


@pytest.mark.filterwarnings(
    "ignore:(Checkpoint directory|The dirpath has changed|the dense network is not):UserWarning"
)
def test_a_fit_goes_on_from_a_checkpoint(version: int, tmp_path: Path) -> None:
    """It was distilled, pruned, and trained with ranges: all of that is in the checkpoint."""
    module = fitted(tmp_path / "run", files_of(version) / "half.ckpt")
    before = load_file(files_of(version) / "artefact" / "model.safetensors")
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-2, atol=1e-3, msg=name)
    card = lit_compress.load(tmp_path / "run" / "artefact").card
    old = read_card(files_of(version) / "artefact")
    assert card is not None
    assert card.pruning == old.pruning
    assert card.variant("int8").parameters == old.variant("int8").parameters
    assert card.config["PostTrainingQuantization"]["trained"] is True


def test_keys_of_later_versions_are_ignored_and_later_versions_refused(version: int) -> None:
    data = json.loads((files_of(version) / "artefact" / "card.json").read_text("utf-8"))
    data.pop("digest", None)
    known = Card.from_json(json.dumps(data))
    data["colour"] = data["variants"][0]["weather"] = "blue"
    assert Card.from_json(json.dumps(data)) == known
    data["format_version"] = FORMAT_VERSION + 1
    with pytest.raises(ArtifactError, match=f"reads up to {FORMAT_VERSION}: update lit-compress"):
        Card.from_json(json.dumps(data))
