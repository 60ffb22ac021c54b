"""Describe the machine that a measurement was made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("lit-compress", "torch", "lightning", "torchao", "onnx", "onnxruntime", "numpy")


def environment() -> dict[str, str | int]:
    """Return the versions, processor and core count of this machine.

    Returns:
        The keys ``python``, ``platform``, ``processor`` and ``cores``, and the version of each
        installed package that a measurement depends on.

    Example:
        >>> facts = environment()
        >>> sorted(set(facts) & {"python", "platform", "processor", "cores", "torch"})
        ['cores', 'platform', 'processor', 'python', 'torch']
    """
    facts: dict[str, str | int] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
