"""A short fit, and conversions of its network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer

from lit_compress.callbacks._quantization.conversion import Conversion
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.evaluation.run_view.copies import clone


@pytest.fixture
def fitted(foreign: ForeignModule, make_trainer: Callable[..., Trainer]) -> Trainer:
    trainer = make_trainer(max_epochs=2)
    trainer.fit(foreign, loader(128), loader(96, 1))
    return trainer


@pytest.fixture
def made(foreign: ForeignModule, fitted: Trainer) -> Callable[..., Any]:
    def make(**options: Any) -> Conversion:
        settings = Settings(**options)
        copy = clone(fitted, foreign)
        return Conversion(fitted, copy, settings.network(fitted, copy), settings)

    return make
