"""Programs and packages for AArch64 on another machine, fetched from Debian and PyPI.

Nothing is installed: Debian's packages are unpacked into a folder, with lists and a state of their
own, so that ``apt`` of this machine knows of nothing. It needs no rights.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

#: What a Python needs, and what the runtimes link to.
PACKAGES = ("python3", "libstdc++6")
#: Tags of wheels that Debian's C library runs.
PLATFORMS = tuple(
    f"{tag}_aarch64"
    for tag in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
)
#: Of the versions that are installed here.
SAME = ("numpy", "onnxruntime", "ai-edge-litert")
#: What these import.
PURE = (
    "flatbuffers",
    "protobuf",
    "backports.strenum",
    "typing-extensions",
    "packaging",
    "tqdm",
    "ml_dtypes",
)
#: ExecuTorch's Python interface imports torch. 2.10 is the last torch on PyPI that needs no CUDA on
#: AArch64, and 1.1 is the ExecuTorch that was built for it.
EXECUTORCH = ("executorch==1.1.*", "torch==2.10.*")
#: What those two import.
OF_TORCH = (
    "filelock",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
    "fsspec",
    "tabulate",
    "ruamel.yaml",
    "pyyaml",
)


def unpack_debian(cache: Path) -> Path:
    """Return a folder with Debian's Python for AArch64.

    Args:
        cache: Folder that keeps it.
    """
    root, state = cache / "root", cache / "apt"
    if (root / "usr" / "bin" / "python3").exists():
        return root
    archives = state / "cache" / "archives"
    for folder in (state / "lists" / "partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "0",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Dir::Cache": str(state / "cache"),
        "Dir::State": str(state),
        "Dir::State::lists": str(state / "lists"),
        "Dir::State::status": str(state / "status"),
    }
    apt = [
        str(shutil.which("apt-get")),
        "-qq",
        *(word for pair in options.items() for word in ("-o", "=".join(pair))),
    ]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "install", "--download-only", "-y", *PACKAGES], check=True)
    for package in sorted(archives.glob("*.deb")):
        subprocess.run([str(shutil.which("dpkg")), "-x", package, root], check=True)
    return root


def python_of(root: Path) -> Path:
    """Return the Python in a folder of Debian's packages."""
    return (root / "usr" / "bin" / "python3").resolve()


def install_wheels(cache: Path, python: str) -> tuple[Path, Path]:
    """Return two folders of packages for AArch64: without torch, and what ExecuTorch needs besides.

    Args:
        cache: Folder that keeps them.
        python: Version of the Python that imports them, such as ``3.11``.
    """
    lean, executorch = cache / f"site-{python}", cache / f"site-executorch-{python}"
    _install([*(f"{name}=={version(name)}" for name in SAME), *PURE], lean, python)
    _install([*EXECUTORCH, *OF_TORCH], executorch, python)
    return lean, executorch


def _install(requirements: Sequence[str], target: Path, python: str) -> None:
    """Unpack wheels; a list in the folder tells which ones it has."""
    wanted, listed = "\n".join(requirements), target / "requirements.txt"
    if listed.is_file() and listed.read_text("utf-8") == wanted:
        return
    words = ["install", "--quiet", "--upgrade", "--no-deps", "--only-binary=:all:"]
    words += ["--implementation", "cp", "--python-version", python, "--target", str(target)]
    words += [word for tag in PLATFORMS for word in ("--platform", tag)]
    subprocess.run([sys.executable, "-m", "pip", *words, *requirements], check=True)
    listed.write_text(wanted, encoding="utf-8")
