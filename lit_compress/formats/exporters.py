"""The exporters by the name of their format, and whether they can be used here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from lit_compress.errors import InvalidArgumentError
from lit_compress.formats.executorch import ExecuTorchExporter
from lit_compress.formats.exporter import Exporter
from lit_compress.formats.litert import LiteRTExporter
from lit_compress.formats.openvino import OpenVINOExporter
from lit_compress.runtimes import FORMATS, Format

_EXPORTERS: dict[Format, Exporter] = {
    found.format: found for found in (ExecuTorchExporter(), LiteRTExporter(), OpenVINOExporter())
}


def exporter(name: Format) -> Exporter:
    """Return the exporter of a format.

    Args:
        name: Any format but ``onnx``, which :func:`lit_compress.export.onnx.write_onnx` writes.
    """
    return _EXPORTERS[name]


def check_installed(names: Sequence[str]) -> None:
    """Check that formats are known, and that their packages can be imported.

    Args:
        names: Names of formats.

    Raises:
        InvalidArgumentError: If not; the message says what to install.

    Example:
        >>> check_installed(["onnx"])
        >>> check_installed(["onx"])
        Traceback (most recent call last):
        ...
        lit_compress.errors.InvalidArgumentError: formats may have onnx, executorch, litert, \
openvino, got 'onx'
    """
    for name in names:
        found = next((known for known in FORMATS if known == name), None)
        if found is None:
            raise InvalidArgumentError(f"formats may have {', '.join(FORMATS)}, got {name!r}")
        missing = [p for p in getattr(_EXPORTERS.get(found), "packages", ()) if not find_spec(p)]
        if missing:
            raise InvalidArgumentError(
                f"formats has {name}, which needs {' and '.join(missing)}: "
                f"pip install 'lit-compress[{name}]', or leave it out"
            )
