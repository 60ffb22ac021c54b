"""A variant comes back from the plain values of its JSON as it was written."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from lit_compress.artifact import Fidelity, LayerFidelity, Metric, Timing, TimingRatio, Variant
from lit_compress.artifact.variant import variant_from_dict

RATIO = TimingRatio("dense", 2.5, (2.25, 2.75), True)
FULL = Variant(
    "int8",
    parameters=100,
    nonzero=50,
    macs=5000,
    bytes=456,
    file="model.onnx",
    metric=Metric("val_acc", 0.75, "val", 400, (0.7, 0.8)),
    latency=Timing("onnxruntime", 1, 2, 0.001, (0.0009, 0.0011), 0.99, 60, (RATIO,)),
    fidelity=Fidelity(30.5, 0.99, 64, 31.0, (LayerFidelity("fc", 40.0, None, True),), 3),
    epoch=7,
    note="int8 weights",
)


def test_a_full_variant_comes_back() -> None:
    assert variant_from_dict(json.loads(json.dumps(asdict(FULL)))) == FULL


def test_a_variant_without_measurements_comes_back() -> None:
    bare = Variant("dense", 100, 99)
    assert variant_from_dict(json.loads(json.dumps(asdict(bare)))) == bare


def test_optional_properties_may_be_missing() -> None:
    data = json.loads(json.dumps(asdict(FULL)))
    del data["latency"]["ratios"], data["fidelity"]["layers"], data["note"]
    read = variant_from_dict(data)
    assert read.latency is not None
    assert read.fidelity is not None
    assert (read.latency.ratios, read.fidelity.layers, read.note) == ((), (), None)


def extended(data: Any) -> Any:
    """Return plain values with one more property in each object."""
    if isinstance(data, list):
        return [extended(item) for item in data]
    if isinstance(data, dict):
        return {key: extended(value) for key, value in data.items()} | {"from_the_future": 1}
    return data


def test_properties_of_a_newer_format_are_passed_over() -> None:
    """A newer version may write more of a variant, and its card is read all the same."""
    assert variant_from_dict(extended(json.loads(json.dumps(asdict(FULL))))) == FULL


def test_the_agreement_says_what_it_is_of() -> None:
    text = Fidelity(30.0, 0.5, 64, agreement_on="class").agreement_text
    assert text == "the same class for 50.0% of 64 calibration inputs"
    text = Fidelity(30.0, 0.5, 64, agreement_on="class at each position").agreement_text
    assert text == "the same class at 50.0% of the positions of 64 calibration inputs"
    text = Fidelity(30.0, 0.5, 64, agreement_on="sign").agreement_text
    assert text == "the same sign for 50.0% of the outputs of 64 calibration inputs"
