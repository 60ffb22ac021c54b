from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lit_compress.errors import ArtifactError
from lit_compress.runtimes.calls import or_error, with_forks


def fails(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    raise RuntimeError("a shape that does not fit")


def test_an_error_of_a_runtime_names_the_file() -> None:
    with pytest.raises(ArtifactError, match=r"litert cannot compute .*model\.tflite \(.*a shape"):
        or_error(fails, "model.tflite", "litert")([])


def test_a_process_opens_its_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def again() -> object:
        opened.append(1)
        return lambda arrays: [arrays[0] * 2]

    run = with_forks(lambda arrays: [arrays[0]], again)  # type: ignore[arg-type]
    one = np.ones(1)
    assert run([one])[0] == 1
    monkeypatch.setattr("os.getpid", lambda: -1)  # as in a forked process
    assert run([one])[0] == 2
    assert run([one])[0] == 2
    assert opened == [1]
