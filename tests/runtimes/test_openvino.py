from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress.errors import ArtifactError
from lit_compress.runtimes.openvino import openvino_run


def test_no_file_of_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(ArtifactError, match=r"OpenVINO cannot load .*model\.xml"):
        openvino_run(tmp_path / "model.xml", (b"<net/>", b""), 1)
