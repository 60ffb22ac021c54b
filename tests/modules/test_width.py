from __future__ import annotations

import pytest

from lit_compress.errors import InvalidArgumentError
from lit_compress.modules.width import check_width, scaled


def test_scaled() -> None:
    assert [scaled(count, 0.5, 4) for count in (24, 116, 1024)] == [12, 56, 512]
    assert scaled(8, 0.01, 4) == 4


@pytest.mark.parametrize("width", [0, -0.5, float("nan"), True])
def test_a_width_that_is_none(width: float) -> None:
    with pytest.raises(InvalidArgumentError, match="above 0"):
        check_width(width)
