"""The table of pruned networks against narrow and random ones, from the answers that were kept."""

from __future__ import annotations

import base64
import json
from statistics import mean

import numpy as np
from controls import CHOOSING, FACTORS, KEPT, KINDS, MORE, SEEDS, SIZES, Control, Kind, choosing

#: Times that seeds and images are drawn anew for an interval.
DRAWS = 2_000


def kept(name: str) -> dict[str, object] | None:
    """Return what was kept of a network; None if it was not measured."""
    path = KEPT / name / "test.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def right(network: str, size: int, kind: Kind) -> dict[int, np.ndarray]:
    """Return for each measured seed which test images the int8 file gets right, as 0 and 1."""
    found = {}
    for seed in SEEDS[network]:
        answers = kept(Control(network, size, kind, seed, 1.0).name)
        if answers is not None:
            packed = np.frombuffer(base64.b64decode(str(answers["right"])), np.uint8)
            found[seed] = np.unpackbits(packed)[: int(str(answers["images"]))].astype(np.int8)
    return found


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a mean, over seeds and images.

    Both are drawn anew with replacement (bootstrap, Efron 1979).

    Args:
        differences: Differences of two networks, seeds x images.
    """
    draws = np.random.default_rng(0)
    seeds, images = differences.shape
    means = []
    for _ in range(DRAWS):
        rows = differences[draws.integers(seeds, size=seeds)].mean(0)
        means.append(rows @ draws.multinomial(images, np.full(images, 1 / images)) / images)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def compared(ours: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> str:
    """Return the mean difference in points, and its interval, over the seeds that both have."""
    common = sorted(ours.keys() & other.keys())
    if len(common) < 2:  # one seed says nothing about others
        return "not measured yet"
    differences = np.stack([ours[seed] - other[seed] for seed in common])
    low, high = interval(100.0 * differences)
    return f"{100 * differences.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def tried(network: str, kind: Kind) -> str:
    """Return the learning rates that were tried, with their accuracies on the validation data."""
    cells = []
    for control in choosing(network, kind):
        found = kept(control.name)
        cells.append("-" if found is None else f"{100 * float(str(found['validation'])):.2f}")
    return " / ".join(cells)


def controls_table(names: dict[str, str]) -> str:
    """Return both tables: what was measured, and how the learning rates were chosen.

    Args:
        names: How networks are written.
    """
    lines = [
        "| | largest file | pruned | random | narrow | pruned less random | pruned less narrow |"
    ]
    lines.append("| --- |" + " --- |" * 6)
    measured = 0
    for network, sizes in SIZES.items():
        for size in sorted(sizes):
            found = {kind: right(network, size, kind) for kind in KINDS}
            measured += sum(map(len, found.values()))
            cells = [
                f"{100 * mean(row.mean() for row in rows.values()):.2f} % ({len(rows)})"
                if rows
                else "not measured yet"
                for rows in found.values()
            ]
            cells += [compared(found["pruned"], found[kind]) for kind in ("random", "narrow")]
            lines.append(f"| {names[network]} | {size:,} | {' | '.join(cells)} |")
    total = sum(len(KINDS) * len(SIZES[network]) * len(SEEDS[network]) for network in SIZES)
    if measured < total:
        lines.append(f"\n{measured} of {total} networks are measured; the others are to come.")
    rates = " / ".join(f"{factor:g}" for factor in FACTORS)
    lines.append(
        f"\nValidation accuracy in per cent, seed {CHOOSING}, {MORE} epochs, with learning"
    )
    lines.append(f"rates of {rates} times the teacher's:\n")
    lines.append("| | pruned | random | narrow |\n| --- | --- | --- | --- |")
    for network in SIZES:
        cells = [tried(network, kind) for kind in KINDS]
        lines.append(f"| {names[network]} | {' | '.join(cells)} |")
    return "\n".join(lines)
