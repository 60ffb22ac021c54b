"""Check what a wheel and a source distribution hold: all files of the package, and nothing else.

python .ci/contents.py dist           # the version is that of CITATION.cff
python .ci/contents.py dist v0.1.0    # and that of a tag, with a heading in CHANGELOG.md
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(folder: str, tag: str | None = None) -> int:
    """Print what is missing or too much, or differs in its version; 1 if anything does."""
    (wheel,) = Path(folder).glob("*.whl")
    (source,) = Path(folder).glob("*.tar.gz")
    files = (ROOT / "lit_compress").rglob("*")
    wanted = {
        str(path.relative_to(ROOT).as_posix())
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }
    in_wheel = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    with tarfile.open(source) as archive:
        in_source = {name.partition("/")[2] for name in archive.getnames()}
    faults = [f"{wheel.name} lacks {name}" for name in sorted(wanted - in_wheel)]
    faults += [f"{wheel.name} has {name}" for name in sorted(in_wheel - wanted)]
    faults += [f"{source.name} lacks {n}" for n in sorted({*wanted, "LICENSE"} - in_source)]
    faults += versions(wheel.name.split("-")[1], tag)
    print("\n".join(faults) or f"{wheel.name}: {len(in_wheel)} files; {source.name} has them too")
    return int(bool(faults))


def versions(version: str, tag: str | None) -> list[str]:
    """Return which files state another version than the wheel, or none."""
    cited = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    faults = []
    if cited is None or cited[1] != version:
        faults.append(f"CITATION.cff does not state version {version}")
    if tag is None:
        return faults
    if tag != f"v{version}":
        faults.append(f"the tag {tag} is not v{version}: set __version__ of lit_compress")
    headings = re.findall(
        r"^## \[?([\w.]+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    if version not in headings:
        faults.append(f"CHANGELOG.md has no heading for version {version}")
    return faults


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
