from __future__ import annotations

import pytest

from lit_compress.runtimes.executorch import open_executorch


def test_no_file_of_executorch() -> None:
    pytest.importorskip("executorch")
    with pytest.raises(RuntimeError):
        open_executorch(b"no such file" * 20, 1)
