"""Write docs/networks.md from the results of the foreign networks.

python tests/zoo/table.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo.networks import entries

HERE = Path(__file__).parent
#: The text of the page, with gaps for the figures.
TEXT = HERE / "page.md"
PAGE = HERE.parents[1] / "docs" / "networks.md"
#: Largest relative difference between a pruned network and one that reads zeros, in float64.
EXACT = 1e-6
#: A file that is further from the float network than this, in dB, must be warned of.
NEAR_DB = 10.0
#: The card's share of int8 weights may differ by this from what is counted in the file: it counts
#: the weights that the file has, and here are those of the module.
SHARE = 0.05


def load(name: str) -> dict[str, dict[str, Any]]:
    """Return the results in a file by network; all networks of the list must be in it."""
    found = {row["name"]: row for row in json.loads((HERE / name).read_text("utf-8"))}
    return {network: found.get(network, {}) for network in entries()}


def silently_wrong(row: dict[str, Any]) -> list[str]:
    """Return what is wrong with a result although nothing said so."""
    pruned, file = row.get("pruned", {}), row.get("quantised", {})
    found = []
    if "left" in pruned and not pruned["anew"] and pruned["difference"] > EXACT:
        found.append(f"differs by {pruned['difference']:.1e}")
    if "sqnr" in file and file["sqnr"] < NEAR_DB and not file["warned"]:
        found.append(f"{file['sqnr']:.1f} dB without a warning")
    if "sqnr" in file and file["said"] > file["int8"] + SHARE:
        found.append(f"{file['int8']:.0%} int8, {file['said']:.0%} on the card")
    return found


def _row(name: str, row: dict[str, Any], peer: dict[str, Any]) -> str:
    pruned, file = row.get("pruned", {}), row.get("quantised", {})
    left = f"{pruned['left']:.3f}" if "left" in pruned else "no"
    left += " (≈)" if pruned.get("norm") == "approximate" else ""
    exact = "anew" if pruned.get("anew") else "exact"
    cells = [
        name,
        left,
        exact if "left" in pruned else "no",
        f"{file['said']:.2f}" if "sqnr" in file else "no",
        f"{file['sqnr']:.1f} dB" if "sqnr" in file else "no",
        f"{peer['left']:.3f}" if "left" in peer else "no",
    ]
    return f"| {' | '.join(cells)} |"


def _failures(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"- {name}, {what}: {row[kind]['error'].partition(': ')[2] or row[kind]['error']}"
        for name, row in rows.items()
        for kind, what in (("pruned", "pruning"), ("quantised", "int8"))
        if "error" in row.get(kind, {"error": "not tried"})
    ]
    return "\n".join(line.replace("|", "/")[:300] for line in lines) or "- Nothing."


def page() -> str:
    """Return the text of the page."""
    rows, peer = load("results.json"), load("torch_pruning.json")
    return TEXT.read_text("utf-8").format(
        count=len(rows),
        pruned=sum("left" in row.get("pruned", {}) for row in rows.values()),
        files=sum("sqnr" in row.get("quantised", {}) for row in rows.values()),
        wrong=sum(bool(silently_wrong(row)) for row in rows.values()),
        peer=sum("left" in row for row in peer.values()),
        version="1.6.1",
        table="\n".join(_row(name, row, peer[name]) for name, row in rows.items()),
        failures=_failures(rows),
    )


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
