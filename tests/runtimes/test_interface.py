from __future__ import annotations

import numpy as np

from lit_compress.artifact import OnnxModel
from lit_compress.runtimes.interface import Engine, Input


def test_a_model_of_an_engine_that_is_open() -> None:
    given = Input("x", (2,), np.dtype(np.float32), True)
    metadata = {"lit_compress.classes": "cat\ndog"}
    engine = Engine("litert", (given,), ("y",), metadata, lambda arrays: [arrays[0] + 1])
    model = OnnxModel("model-b1.tflite", engine=engine)
    assert model.runtime == "litert"
    assert model.classes == ("cat", "dog")
    np.testing.assert_array_equal(model(np.zeros((3, 2), np.float32)), np.ones((3, 2)))
