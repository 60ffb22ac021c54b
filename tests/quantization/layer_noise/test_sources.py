from torch import nn

from lit_compress.quantization import Calibrated
from lit_compress.quantization.layer_noise.sources import find_sources, is_weight, observed

from .networks import images


def test_sources_of_a_value_that_is_moved() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    inputs = images()
    calibrated = Calibrated(net, [inputs], inputs)
    sources = find_sources(calibrated._prepared, calibrated._quantizer.owners)
    assert set(sources) == {
        ("input", "activation"),
        ("0", "weight"),
        ("0", "activation"),
        ("3", "weight"),
    }
    first, *others = sorted(sources["0", "activation"], key=lambda node: len(observed(node)[1]))
    assert observed(first)[1] == []
    assert all(observed(node)[1] == [first] for node in others)
    (weight,) = sources["3", "weight"]
    assert is_weight(weight)
    assert not is_weight(first)
