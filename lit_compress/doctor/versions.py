"""The versions of the packages that a run needs, without an import of them."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

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
    for requirement in map(Requirement, needed):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found += _check(requirement.name, requirement.specifier)
    if found:
        return found
    return [fine(", ".join(f"{name} {version(name)}" for name in SHOWN))]


def _check(name: str, bounds: SpecifierSet) -> list[Answer]:
    try:
        installed = version(name)
    except PackageNotFoundError:
        return [error(f"{name} is not installed", f"run pip install '{name}{bounds}'")]
    if why := REFUSED.get((name.lower(), release(installed))):
        remedy = (
            f"remove it, change the passwords and keys that this machine has, and run "
            f"pip install '{name}{bounds}'"
        )
        return [error(f"{name} {installed} {why}", remedy)]
    if bounds.contains(release(installed)):
        return []
    return [
        error(
            f"{name} is {installed}, and {bounds} is needed",
            f"update it: pip install '{name}{bounds}'",
        )
    ]


def release(installed: str) -> str:
    """Return the numbers of a version; what follows them (``+cpu``, ``rc1``) does not count.

    Example:
        >>> release("2.10.0rc1+cpu")
        '2.10.0'
    """
    match = re.match(r"\d+(?:\.\d+)*", installed)
    return match[0] if match else "0"
