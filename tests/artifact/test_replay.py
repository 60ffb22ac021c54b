from pathlib import Path

import numpy as np
import pytest

from lit_compress.artifact import Fidelity, OnnxModel, replay
from lit_compress.artifact.fidelity import sketch
from lit_compress.artifact.replay import check_replay, read_replay, write_replay
from lit_compress.errors import ArtifactError


class Twice(OnnxModel):
    """A model that needs no file."""

    runtime = "onnxruntime"

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def __call__(self, *inputs: np.ndarray, **_: object) -> np.ndarray:
        return inputs[0] * (2 + self.noise)


INPUTS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    write_replay(tmp_path / "replay.npz", [INPUTS, np.ones(2, np.int64)], INPUTS * 2)
    return tmp_path / "replay.npz"


def test_what_was_written_is_read(stored: Path) -> None:
    inputs, outputs = read_replay(stored)
    np.testing.assert_array_equal(inputs[0], INPUTS)
    assert inputs[1].dtype == np.int64
    np.testing.assert_array_equal(outputs[0], INPUTS * 2)


def test_the_worst_of_several_outputs_counts(tmp_path: Path) -> None:
    class Both(Twice):
        outputs = ("first", "second")

        def __call__(self, *inputs: np.ndarray, **_: object) -> dict[str, np.ndarray]:
            return {"first": inputs[0] * 2, "second": inputs[0] * (2 + self.noise)}

    file = tmp_path / "replay.npz"
    write_replay(file, [INPUTS], [INPUTS * 2, INPUTS * 2])
    recorded = Fidelity(30.0, 1.0, 4, 40.0)
    assert check_replay(Both(2 * 0.01), file, recorded) == pytest.approx(40, abs=0.01)
    with pytest.raises(ArtifactError, match=r"dB SQNR of second against the float network"):
        check_replay(Both(2 * 0.02), file, recorded)
    with pytest.raises(ArtifactError, match=r"and the model's are \[\(4, 3\)\]"):
        check_replay(Twice(), file, recorded)


def test_three_decibels_are_let_pass(stored: Path) -> None:
    recorded = Fidelity(30.0, 1.0, 4, 40.0)
    assert check_replay(Twice(2 * 0.01), stored, recorded) == pytest.approx(40, abs=0.01)
    assert check_replay(Twice(2 * 0.014), stored, recorded) == pytest.approx(37.1, abs=0.1)
    with pytest.raises(ArtifactError, match=r"36\.\d dB .* where 40\.0 dB were recorded"):
        check_replay(Twice(2 * 0.015), stored, recorded)
    with pytest.raises(ArtifactError, match=r"-200\.0 dB"):
        check_replay(Twice(float("nan")), stored, recorded)


def test_what_differs_is_said_and_no_cause_is_guessed(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO gave other answers on a processor with VNNI, and its lack was blamed."""

    class Off(Twice):
        def __call__(self, *inputs: np.ndarray, **_: object) -> np.ndarray:
            outputs = inputs[0] * 2
            outputs[2, 1] += 0.5
            return outputs

    monkeypatch.setattr(replay, "lacks_vnni", lambda: False)
    with pytest.raises(ArtifactError) as caught:
        check_replay(Off(), stored, Fidelity(30.0, 1.0, 4, 40.0))
    said = str(caught.value)
    assert "to 200.0 dB; the largest difference is in output 1 of " in said
    assert f"input 2: {2 * INPUTS[2, 1]:.4g} in float, {2 * INPUTS[2, 1] + 0.5:.4g} here" in said
    assert "Load it with runtime='openvino', or with another version of onnxruntime" in said
    assert "VNNI" not in said
    monkeypatch.setattr(replay, "lacks_vnni", lambda: True)
    with pytest.raises(ArtifactError, match=r"has no VNNI.*weight_range: reduced"):
        check_replay(Off(), stored, Fidelity(30.0, 1.0, 4, 40.0))


def test_noise_below_that_of_the_quantisation_is_seen(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of 4 bits, sums that saturate: 1 to 4 % of the classes were others, and it passed."""
    written = Twice(2 * 0.1)
    recorded = Fidelity(20.0, 1.0, 4, 20.0, replay_sketch=sketch([written(INPUTS)]))
    check_replay(written, stored, recorded)
    check_replay(Twice(2 * 0.1001), stored, recorded)
    other = Twice(2 * 0.12)  # 1.6 dB
    monkeypatch.setattr(replay, "lacks_vnni", lambda: True)
    with pytest.raises(
        ArtifactError,
        match=r"than on the one that wrote.* 4 stored inputs differ by .* weight_range: reduced",
    ):
        check_replay(other, stored, recorded)
    monkeypatch.setattr(Twice, "runtime", "openvino")
    check_replay(other, stored, recorded)  # it rounds otherwise than the runtime that was measured


def test_float_networks_of_other_processors_are_let_pass(stored: Path) -> None:
    """A float file with 130 dB on AArch64 had 120 dB on x86, and 3 dB were allowed."""
    recorded = Fidelity(130.0, None, 4, 130.0)
    assert check_replay(Twice(2 * 1e-6), stored, recorded) == pytest.approx(120, abs=1)
    with pytest.raises(ArtifactError, match=r"40\.0 dB .* where 130\.0 dB were recorded"):
        check_replay(Twice(2 * 0.01), stored, recorded)


@pytest.mark.parametrize("told", [("AAAA",), ("!",), ("AACAPw==", "AACAPw==")])
def test_a_damaged_sketch_is_refused(told: tuple[str, ...], stored: Path) -> None:
    recorded = Fidelity(200.0, 1.0, 4, 200.0, replay_sketch=told)
    with pytest.raises(ArtifactError, match="the card has no sketch of the outputs"):
        check_replay(Twice(), stored, recorded)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "replay.npz", input_0=np.array([{}], object), output=INPUTS)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_replay(tmp_path / "replay.npz")


def test_objects_are_not_written(tmp_path: Path) -> None:
    """numpy would pickle them."""
    with pytest.raises(ArtifactError, match=r"input_0 of .* holds Python objects"):
        write_replay(tmp_path / "replay.npz", [np.array([{}])], np.ones(1))
    assert not list(tmp_path.iterdir())


def test_nothing_but_inputs_and_outputs_is_stored(tmp_path: Path) -> None:
    """numpy 1.26 stored an option as one more array, and the file could not be read."""
    write_replay(tmp_path / "replay.npz", [np.ones(2), np.zeros(3)], np.ones(1))
    with np.load(tmp_path / "replay.npz") as file:
        assert sorted(file.files) == ["input_0", "input_1", "output"]
