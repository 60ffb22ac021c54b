"""What is known of the processor that runs a file."""

from __future__ import annotations

import platform
from pathlib import Path

#: Where Linux lists what a processor can do.
CPUINFO = Path("/proc/cpuinfo")


def lacks_vnni() -> bool:
    """Tell whether it is known that the processor has no VNNI.

    Without it, x86 processors add two products of uint8 activations and int8 weights in 16 bits,
    which saturates (https://github.com/microsoft/onnxruntime/issues/12072,
    https://github.com/microsoft/onnxruntime/issues/14642,
    https://github.com/pytorch/pytorch/issues/103646).

    Returns:
        False if it has VNNI, is not an x86 processor, or does not say what it can do.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or not CPUINFO.is_file():
        return False
    flags = [line for line in CPUINFO.read_text().splitlines() if line.startswith("flags")]
    return bool(flags) and not any("vnni" in line for line in flags)


def processor_name() -> str:
    """Return the name of the processor, or ``unknown``."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
