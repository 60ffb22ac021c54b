"""The table of what distillation and fake quantisation keep, from the counts that were kept."""

from __future__ import annotations

import json
from statistics import mean

from accuracy_kept import KEPT, SEEDS, TARGETS, Trial

#: How the ways of compressing are written.
WAYS = {
    (False, False): "int8 after the training",
    (False, True): "fake quantisation",
    (True, False): "distillation, int8 after it",
    (True, True): "distillation and fake quantisation",
}


def accuracy(name: str) -> float | None:
    """Return the accuracy of a network on the test data; None if it was not measured."""
    path = KEPT / name / "test.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text("utf-8"))
    return float(next(iter(found["correct"].values())) / found["images"])


def losses(network: str, target: float, way: tuple[bool, bool]) -> list[float]:
    """Return what is lost against the dense network of the same seed, in points, by seed."""
    found = []
    for seed in SEEDS:
        before = accuracy(f"{network}-dense-{seed}")
        after = accuracy(Trial(network, seed, target, *way).name)
        if before is not None and after is not None:
            found.append(100 * (before - after))
    return found


def kept_table(names: dict[str, str]) -> str:
    """Return the table: points of accuracy that are lost, each seed and their mean.

    Args:
        names: How networks are written.
    """
    head = "| | removed | " + " | ".join(WAYS.values()) + " |"
    lines = [head, "| --- | --- |" + " --- |" * len(WAYS)]
    measured = 0
    for network, targets in TARGETS.items():
        for target in sorted(targets):
            cells = []
            for way in WAYS:
                found = losses(network, target, way)
                measured += len(found)
                each = ", ".join(f"{one:.2f}" for one in found)
                cells.append(f"**{mean(found):.2f}** ({each})" if found else "not measured yet")
            lines.append(f"| {names[network]} | {target:.0%} | {' | '.join(cells)} |")
    total = len(SEEDS) * len(WAYS) * sum(map(len, TARGETS.values()))
    if measured < total:
        lines.append(f"\n{measured} of {total} networks are measured; the others are to come.")
    return "\n".join(lines)
