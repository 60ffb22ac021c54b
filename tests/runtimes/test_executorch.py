from __future__ import annotations

import pytest

from lit_compress.runtimes.executorch import open_executorch


def test_the_number_of_threads_can_be_set() -> None:
    """By functions of ExecuTorch that are private: its Python interface has no others."""
    pytest.importorskip("executorch")
    from executorch.extension.pybindings import portable_lib

    before = portable_lib._threadpool_get_thread_count()
    portable_lib._unsafe_reset_threadpool(1)
    assert portable_lib._threadpool_get_thread_count() == 1
    portable_lib._unsafe_reset_threadpool(before)


def test_no_file_of_executorch() -> None:
    pytest.importorskip("executorch")
    with pytest.raises(RuntimeError):
        open_executorch(b"no such file" * 20, 1)
