"""Describe the machine that a measurement was made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from lit_compress.runtimes.processor import processor_name

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
        "processor": processor_name(),
        "cores": os.cpu_count() or 1,
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts
