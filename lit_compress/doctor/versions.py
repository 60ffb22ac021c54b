"""The versions of the packages that a run needs, without an import of them."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

from lit_compress.doctor.finding import Answer, error, fine

#: Versions that must not be used, and why.
REFUSED = {
    ("lightning", "2.6.2"): "is malware that was put on PyPI (GHSA-w37p-236h-pfx3)",
    ("lightning", "2.6.3"): "is malware that was put on PyPI (GHSA-w37p-236h-pfx3)",
}
#: What this package is called.
OWN = "lit-compress"
#: Shown if all is well.
SHOWN = ("torch", "lightning", "torchao", "onnx", "onnxruntime")


def check_versions() -> list[Answer]:
    """Compare the installed versions with the lower and upper bounds of this package."""
    found: list[Answer] = []
    try:
        needed = requires(OWN) or []
    except PackageNotFoundError:
        return [fine(f"{OWN} runs from its source, so the bounds of versions are not known")]
    for line in needed:
        if "extra ==" in line:
            continue
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?([^;)]*)", line)
        if match is not None:
            found += _check(match[1], match[2])
    if found:
        return found
    return [fine(", ".join(f"{name} {version(name)}" for name in SHOWN))]


def _check(name: str, bounds: str) -> list[Answer]:
    try:
        installed = version(name)
    except PackageNotFoundError:
        return [error(f"{name} is not installed", f"run pip install '{name}{bounds}'")]
    if why := REFUSED.get((name.lower(), _release(installed))):
        remedy = (
            f"remove it, change the passwords and keys that this machine has, and run "
            f"pip install '{name}{bounds}'"
        )
        return [error(f"{name} {installed} {why}", remedy)]
    if _is_within(installed, bounds):
        return []
    return [
        error(
            f"{name} is {installed}, and {bounds.strip()} is needed",
            f"update it: pip install '{name}{bounds.strip()}'",
        )
    ]


def _is_within(installed: str, bounds: str) -> bool:
    """Tell whether a version is within bounds such as ``!=2.6.2,>=2.6``."""
    here = _numbers(installed)
    for bound in filter(None, (part.strip() for part in bounds.split(","))):
        match = re.match(r"(>=|<=|==|!=|<|>)\s*([\w.]+)", bound)
        if match is None:
            continue
        limit = _numbers(match[2])
        length = max(len(here), len(limit))
        one, other = (part + (0,) * (length - len(part)) for part in (here, limit))
        holds = {
            ">=": one >= other,
            "<=": one <= other,
            "==": one == other,
            "!=": one != other,
            "<": one < other,
            ">": one > other,
        }
        if not holds[match[1]]:
            return False
    return True


def _release(installed: str) -> str:
    return ".".join(map(str, _numbers(installed)))


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a release; what follows them (``+cpu``, ``rc1``) does not count."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else (0,)
