"""A card with every field, written by hand."""

from __future__ import annotations

from lit_compress.artifact import (
    Card,
    Fidelity,
    LayerFidelity,
    Metric,
    Timing,
    TimingRatio,
    Variant,
)
from lit_compress.artifact.history import Epoch, Layers
from lit_compress.artifact.variant import FloatWeight

WIDTHS = {"net.conv1": 16, "net.conv2": 32, "net.head.lstm": 64, "net.fc": 10}
STEPS = (2, 4, 5)


def timing(engine: str, seconds: float, *ratios: TimingRatio) -> Timing:
    return Timing(engine, 1, 2, seconds, (0.9 * seconds, 1.1 * seconds), 0.99, 60, ratios)


def metric(value: float, low: float, high: float, confusion: object = None) -> Metric:
    return Metric("val_acc", value, "val", 1200, (low, high), confusion)  # type: ignore[arg-type]


DENSE = Variant(
    "dense",
    351_610,
    351_600,
    10_459_648,
    1_483_192,
    "dense.safetensors",
    metric(0.97212, 0.94597, 0.98581, ((390, 5, 5), (4, 380, 16), (2, 8, 390))),
    timing("pytorch", 0.0065),
    epoch=8,
    note="just before the first pruning",
)
BASE = Variant(
    "pruned onnx",
    44_394,
    44_394,
    1_813_616,
    203_680,
    latency=timing("onnxruntime", 0.0004, TimingRatio("dense", 18.416, (17.5, 19.1), True)),
    note="the pruned weights as fp32 ONNX",
)
INT8 = Variant(
    "int8",
    44_396,
    44_047,
    1_813_616,
    120_507,
    "model.onnx",
    metric(0.90258, 0.88987, 0.92253, ((380, 10, 10), (40, 300, 60), (0, 0, 400))),
    timing(
        "onnxruntime",
        0.0005,
        TimingRatio("dense", 14.5476, (14.0, 15.7), True),
        TimingRatio("pruned onnx", 1.01, (0.97, 1.06), False),
    ),
    Fidelity(
        14.25,
        0.8765,
        287,
        layers=(
            LayerFidelity("net.input", None, 49.0),
            LayerFidelity("net.conv1", 62.5, 61.5),
            LayerFidelity("net.conv2", 41.25, 56.9),
            LayerFidelity("net.head.lstm", None, None, float=True),
            LayerFidelity("net.fc", 52.3, None),
        ),
    ),
    epoch=24,
    int8_share=0.6,
    float_weights=(FloatWeight("net.head.lstm", 0.4, "lstm has no int8 form here"),),
)


def epoch(number: int) -> Epoch:
    done = sum(step <= number for step in STEPS)
    channels = {
        name: width if name == "net.fc" else max(1, width - width * done // 5)
        for name, width in WIDTHS.items()
    }
    return Epoch(
        number,
        seconds=2.5 - 0.3 * done,
        parameters=351_610 - 100_000 * done,
        metric=None if number == 6 else 0.5 + 0.05 * number - 0.02 * done,
        reached=(0.2 * done,),
        pruned=number in STEPS,
        layers=Layers(channels, {name: 90 * count for name, count in channels.items()}),
    )


def full_card(run: str = "quickstart/0") -> Card:
    return Card(
        run,
        (DENSE, BASE, INT8),
        {"python": "3.11.7", "processor": "Xeon", "cores": 2},
        config={"FilterPruning": {"target": 0.7}},
        seed=7,
        pruning=({"callback": "FilterPruning", "target": 0.7, "reached": 0.6, "epochs": [*STEPS]},),
        history=tuple(map(epoch, range(9))),
    )
