"""The place of a tensor in a file."""

import numpy as np
import pytest

from lit_compress.packed.tensor import DTYPES, Tensor


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_size(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype)
    tensor = Tensor("w", dtype, shape, 7)
    assert (tensor.size, tensor.end) == (array.nbytes, 7 + array.nbytes)
    assert tensor.word in (1, 2, 4, 8)
    assert array.itemsize % tensor.word == 0
