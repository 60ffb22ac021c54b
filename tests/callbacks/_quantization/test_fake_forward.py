"""A module computes as its file does, inside a block and only there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import ForeignModule, Reversed, stripes
from torch import Tensor, nn

from lit_compress.callbacks._quantization.fake_forward import FakeForward, Place
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.errors import ExportError, PatternError
from lit_compress.export.outputs import Outputs
from lit_compress.export.signature import Signature
from lit_compress.quantization import Calibrated

IMAGES = stripes(16, 0).tensors[0]


def placed(module: ForeignModule, inner: str = "net") -> Place:
    signature = Signature.of(module, [IMAGES], {})
    return Place("", inner, IMAGES[:4], signature, Outputs.of(module(IMAGES)))


def fake(module: Any, inner: str = "net", **settings: Any) -> FakeForward:
    place = placed(module, inner)
    network = place.target().captured(module).eval()
    ranges = Calibrated(network, [IMAGES], IMAGES[:2], correct=False).ranges
    return FakeForward(module, place, ranges, Settings(**settings))


def test_the_module_is_as_it_was_after_the_block(foreign: ForeignModule) -> None:
    foreign.eval()
    before = foreign(IMAGES)
    with fake(foreign).forwards(foreign):
        inside = foreign(IMAGES)
    assert not torch.equal(inside, before)
    assert torch.equal(foreign(IMAGES), before)
    assert "forward" not in vars(foreign.net)


def test_it_reads_the_tensors_that_the_module_has_now(foreign: ForeignModule) -> None:
    """A buffer that is replaced is another tensor: a reference would be the old one."""
    made, mean = fake(foreign), foreign.eval().net[1].running_mean

    def outputs() -> Tensor:
        with torch.no_grad(), made.forwards(foreign):
            found: Tensor = foreign(IMAGES)
        return found

    before = outputs()
    with torch.no_grad():
        foreign.net[7].bias.add_(1)
    torch.testing.assert_close(outputs(), before + 1)
    foreign.net[1].running_mean = mean - 5
    assert not torch.allclose(outputs(), before + 1, atol=1e-3)
    foreign.net[1].running_mean = mean.clone()
    torch.testing.assert_close(outputs(), before + 1)
    assert made.calls == 4


def test_gradients_that_differ_are_found() -> None:
    made = fake(Reversed(), inner="")
    with pytest.raises(ExportError, match=r"net\.0\.weight gets another gradient"):
        made.check_gradients(Reversed())


def test_gradients_of_a_plain_network_are_the_same(foreign: ForeignModule) -> None:
    fake(foreign).check_gradients(foreign)
    assert all(parameter.grad is None for parameter in foreign.parameters())


def test_skipped_layers_are_float_and_have_their_names(foreign: ForeignModule) -> None:
    all_float = fake(foreign, skip=("net.*",))
    with torch.no_grad():
        found = all_float.outputs(foreign.eval(), [IMAGES])[0]
        expected = foreign(IMAGES)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(PatternError):
        fake(foreign, skip=("no.such.layer",))


def test_droppers_are_the_modules_that_drop(foreign: ForeignModule) -> None:
    foreign.net.insert(7, nn.Dropout(0.3))
    assert fake(foreign).droppers(foreign) == [foreign.net[7]]
