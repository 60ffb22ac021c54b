"""The JSON, and what decides over --at-least."""

from __future__ import annotations

import json

import jsonschema
import pytest

from lit_compress.benchmark import Benchmark, Measured
from lit_compress.benchmark.limit import Limit
from lit_compress.timing.environment import environment
from lit_compress.timing.intervals import Speedup

NUMBER = {"type": ["number", "null"]}
SPEEDUP = {
    "type": "object",
    "required": ["over", "ratio", "interval", "significant"],
    "additionalProperties": False,
    "properties": {
        "over": {"type": "string"},
        "ratio": {"type": "number"},
        "interval": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        "significant": {"type": "boolean"},
    },
}
ROW = {
    "file": {"type": "string"},
    "kind": {"enum": ["artefact", "ONNX file", "checkpoint"]},
    "runtime": {"enum": ["onnxruntime", "openvino", "pytorch"]},
    "batch": {"type": "integer", "minimum": 1},
    "threads": {"type": "integer", "minimum": 1},
    "rounds": {"type": "integer", "minimum": 10},
    "seconds": {"type": "number", "exclusiveMinimum": 0},
    "interval": SPEEDUP["properties"]["interval"],  # type: ignore[index]
    "examples_per_second": {"type": "number"},
    "inputs": {"type": "string"},
    "macs": NUMBER,
    "int8_macs": NUMBER,
    "limit_seconds": NUMBER,
    "share": NUMBER,
    "peak_bytes": NUMBER,
    "speedups": {"type": "array", "items": SPEEDUP},
    "absent": {"type": "object", "additionalProperties": {"type": "string"}},
}
LIMIT = {
    "runtime": {"type": "string"},
    "threads": {"type": "integer"},
    "kind": {"enum": ["int8", "float32"]},
    "macs_per_second": {"type": "number"},
}


def closed(properties: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "required": [*properties],
        "additionalProperties": False,
        "properties": properties,
    }


#: Schema of the JSON, which users parse.
SCHEMA = closed(
    {
        "format_version": {"const": 1},
        "rows": {"type": "array", "items": closed(ROW), "minItems": 1},
        "limits": {"type": "array", "items": closed(LIMIT)},
        "notes": {"type": "array", "items": {"type": "string"}},
        "environment": {"type": "object"},
    }
)


def row(low: float, threads: int = 1) -> Measured:
    speedup = Speedup("onnxruntime", low + 0.1, (low, low + 0.2), True)
    times = {"seconds": 0.001, "interval": (0.0009, 0.0011), "examples_per_second": 1000.0}
    return Measured(
        "a.onnx",
        "ONNX file",
        "onnxruntime",
        1,
        threads,
        60,
        **times,  # type: ignore[arg-type]
        inputs="random numbers",
        speedups=(speedup,),
    )


def test_the_json_follows_its_schema() -> None:
    limit = Limit("onnxruntime", 1, "int8", 4e11)
    found = Benchmark((row(1.5),), (limit,), environment(), ("a note",))
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)
    assert json.loads(found.to_json())["rows"][0]["speedups"][0]["interval"] == [1.5, 1.7]


def test_the_low_end_decides() -> None:
    found = Benchmark((row(2.5), row(1.75, threads=2)), (), {})
    assert found.below(1.75) == []
    assert found.below(2) == [
        "a.onnx, onnxruntime, batch 1, 2 threads: at least 1.75x, which is 0.25 below 2x"
    ]
    assert len(found.below(3)) == 2


@pytest.mark.parametrize("least", [0.5, 1.0])
def test_rows_that_are_not_compared_do_not_decide(least: float) -> None:
    alone = Measured("a", "ONNX file", "openvino", 1, 1, 10, 1.0, (1.0, 1.0), 1.0, "none")
    assert Benchmark((alone,), (), {}).below(least) == []
