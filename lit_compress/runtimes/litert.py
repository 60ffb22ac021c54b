"""Run ``.tflite`` files by LiteRT, formerly TensorFlow Lite."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lit_compress.runtimes.interface import Run


def open_litert(content: bytes, threads: int) -> Run:
    """Open a ``.tflite`` file.

    An input of the file may be int8 where that of the network is float: it is quantised with the
    scale and zero point of the file, and an int8 output is turned back.

    Args:
        content: Content of the file.
        threads: Number of threads; 0 means one per core.

    Raises:
        ValueError: Of LiteRT, if it cannot load the file.
    """
    own = threading.local()  # an interpreter serves one call at a time

    def interpreter() -> Any:
        if not hasattr(own, "interpreter"):
            own.interpreter = _interpreter(content, threads or os.cpu_count() or 1)
        return own.interpreter

    interpreter()

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        here = interpreter()
        for details, array in zip(_in_order(here.get_input_details()), arrays, strict=True):
            here.set_tensor(details["index"], quantized(array, details))
        here.invoke()
        outputs = _in_order(here.get_output_details())
        return [dequantized(here.get_tensor(item["index"]), item) for item in outputs]

    return run


def _interpreter(content: bytes, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_content=content, num_threads=threads)
    found.allocate_tensors()
    return found


def _in_order(details: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return inputs or outputs by the number that the converter put into their names."""
    return sorted(details, key=lambda item: int("0" + "".join(filter(str.isdigit, _end(item)))))


def _end(details: Mapping[str, Any]) -> str:
    return str(details["name"]).rpartition("_")[2]


def quantized(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Return an array in the type of an input.

    Args:
        array: The array.
        details: What LiteRT says of the input: ``dtype``, and ``quantization`` as (scale, zero
            point), with the scale 0 for none.

    Example:
        >>> details = {"dtype": np.int8, "quantization": (0.5, -128)}
        >>> quantized(np.array([0, 0.5, 200], np.float32), details)
        array([-128, -127,  127], dtype=int8)
    """
    scale, zero_point = details["quantization"]
    if not scale or array.dtype.kind != "f":
        return array.astype(details["dtype"], copy=False)
    limits = np.iinfo(details["dtype"])
    values = np.round(array / np.float32(scale)) + zero_point
    found: np.ndarray = np.clip(values, limits.min, limits.max).astype(details["dtype"])
    return found


def dequantized(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Return an output as float, if it is quantised.

    Args:
        array: The output.
        details: What LiteRT says of it, see :func:`quantized`.

    Example:
        >>> details = {"quantization": (0.5, -128)}
        >>> dequantized(np.array([-128, -126], np.int8), details)
        array([0., 1.], dtype=float32)
    """
    scale, zero_point = details["quantization"]
    if not scale:
        return np.array(array)
    return np.asarray((array.astype(np.int32) - zero_point) * np.float32(scale), np.float32)
