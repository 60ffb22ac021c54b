"""What a choice opens is the file that the card names, with what the card says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifact.conftest import INPUTS, WEIGHT
from lit_compress.artifact import Card, Variant, read_card
from lit_compress.artifact.fastest import Choice
from lit_compress.artifact.folder.choice import open_choice
from lit_compress.errors import ArtifactError


def test_it_opens_the_network_and_says_what_was_read(artifact: Path) -> None:
    card = read_card(artifact)
    model, recorded, read = open_choice(artifact, card, Choice("onnxruntime", "int8"), 1)
    np.testing.assert_allclose(model(INPUTS), INPUTS @ WEIGHT, rtol=1e-6)
    assert recorded() == card.variant("int8").fidelity
    assert read == ("model.onnx",)


def test_a_card_without_a_fidelity_says_so_once_it_is_asked(artifact: Path) -> None:
    int8 = Variant("int8", 12, 11, file="model.onnx")
    card = Card("run", (int8,), {}, files=dict(read_card(artifact).files))
    model, recorded, _ = open_choice(artifact, card, Choice("onnxruntime", "int8"), 1)
    assert model(INPUTS).shape == (2, 4)
    with pytest.raises(ArtifactError, match=r"no fidelity for model\.onnx"):
        recorded()


def test_a_runtime_without_a_file_of_its_own(artifact: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no file for executorch: write one, with formats"):
        open_choice(artifact, read_card(artifact), Choice("executorch", "int8"), 1)
