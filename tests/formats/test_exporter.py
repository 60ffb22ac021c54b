from __future__ import annotations

import inspect

import pytest

from lit_compress.formats import Exporter, exporter
from lit_compress.runtimes import FORMATS, Format


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "onnx"])
def test_each_exporter_follows_the_protocol(name: Format) -> None:
    found = exporter(name)
    assert found.format == name
    assert found.packages
    assert isinstance(found.one_batch, bool)
    wanted, given = (inspect.signature(kind.write) for kind in (Exporter, type(found)))
    assert list(wanted.parameters) == list(given.parameters)
