"""What 4 bits cost, by the stored inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lit_compress.artifact import OnnxModel, read_card, write_replay
from lit_compress.artifact.replay import read_replay
from lit_compress.errors import AccuracyError, ArtifactError
from lit_compress.packed.four_bits import round_onnx
from lit_compress.packed.measured import Cost, check_cost, measure_cost, rounded_variant

EXAMPLE = Path(__file__).parents[2] / "examples/digits_int8"


def test_the_cost_of_4_bits(tmp_path: Path) -> None:
    data = (EXAMPLE / "model.onnx").read_bytes()
    rounded = round_onnx(data)
    cost = measure_cost(data, rounded.onnx, EXAMPLE / "replay.npz")
    (images,), (expected,) = read_replay(EXAMPLE / "replay.npz")
    (tmp_path / "model.onnx").write_bytes(rounded.onnx)
    found = OnnxModel(tmp_path / "model.onnx")(images)
    power, noise = np.square(expected).sum(), np.square(expected - found).sum()
    assert cost.sqnr_db == pytest.approx(10 * np.log10(power / noise), abs=1e-3)
    assert cost.same_class == np.mean(expected.argmax(1) == found.argmax(1))
    assert cost.before_db > cost.sqnr_db
    assert cost.count == len(images)
    after = rounded_variant(read_card(EXAMPLE).variant("int8"), rounded, cost)
    assert after.fidelity is not None
    assert after.fidelity.agreement == cost.same_class
    assert not after.fidelity.layers


def test_stored_outputs_of_another_network(tmp_path: Path) -> None:
    (images,), (expected,) = read_replay(EXAMPLE / "replay.npz")
    write_replay(tmp_path / "replay.npz", [images], [expected, expected])
    data = (EXAMPLE / "model.onnx").read_bytes()
    with pytest.raises(ArtifactError, match="has other outputs than the network"):
        measure_cost(data, data, tmp_path / "replay.npz")


@pytest.mark.parametrize("limit", [None, 19.9, 20.0])
def test_a_limit_that_holds(limit: float | None) -> None:
    check_cost(Cost(20.0, 38.0, None, 32), limit)
    with pytest.raises(AccuracyError, match=r"at 20\.0 dB SQNR .* below min_sqnr_db=20\.5"):
        check_cost(Cost(20.0, 38.0, None, 32), 20.5)
