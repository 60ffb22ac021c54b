import pytest

from lit_compress.quantization import Calibrated
from lit_compress.quantization.layer_noise import runs, sources

from .networks import by_runs, chain, images


def test_a_budget_of_nothing_takes_two_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = images()
    calibrated = Calibrated(chain(1), [inputs], inputs)
    few = by_runs(calibrated, inputs[:2])
    monkeypatch.setattr(sources, "BUDGET", 0)
    assert by_runs(calibrated, inputs) == few
    assert runs.MIN_INPUTS == 2
