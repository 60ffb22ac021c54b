"""Write the tables and the picture of the results from the files in ``experiments/results``.

    python experiments/draw.py

Changes the parts of README.md and docs/results.md between ``<!-- results: NAME -->`` and
``<!-- end of results -->``, and writes docs/pictures/results.svg. A row appears when its compressed
network was measured on the test data; the others are named as missing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from controls_table import controls_table
from kept_table import kept_table
from matplotlib.ticker import LogLocator, NullFormatter
from rows import ROWS

from lit_compress.artifact import Card, Variant
from lit_compress.report.figures.style import FIRST, QUIET, SECOND, new_figure, styled

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
PICTURE = ROOT / "docs" / "pictures" / "results.svg"
#: How networks and data sets are written.
NAMES = {
    "shufflenet_v2": "ShuffleNetV2",
    "mobilenet_v2": "MobileNetV2",
    "alexnet": "AlexNet",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR-10",
}


@dataclass(frozen=True)
class Measured:
    """A network of the table, with what it got right on the test data.

    Attributes:
        row: Name of the row.
        stage: ``dense``, ``compressed`` or ``narrow``.
        variant: The variant on its card.
        correct: Correct answers.
        images: Images of the test data.
    """

    row: str
    stage: str
    variant: Variant
    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.correct / self.images

    @property
    def half_interval(self) -> float:
        """Half of the 95 % interval of the accuracy (normal approximation)."""
        return 1.96 * sqrt(self.accuracy * (1 - self.accuracy) / self.images)

    @property
    def percent(self) -> str:
        """The accuracy with its interval."""
        return f"{100 * self.accuracy:.2f} ± {100 * self.half_interval:.2f} %"


def measured(row: str, stage: str) -> dict[str, Measured]:
    """Return what was measured of a training, by name of the variant; nothing if it was not."""
    folder = RESULTS / row / stage
    if not (folder / "test.json").is_file():
        return {}
    card = Card.from_json((folder / "card.json").read_text("utf-8"), str(folder / "card.json"))
    test = json.loads((folder / "test.json").read_text("utf-8"))
    return {
        name: Measured(row, stage, card.variant(name), hits, test["images"])
        for name, hits in test["correct"].items()
    }


def title(row: str) -> str:
    """Return a row's network and data set as they are written."""
    network, data = next((n, row.removeprefix(f"{n}_")) for n in NAMES if row.startswith(n))
    return f"{NAMES[network]}, {NAMES[data]}"


def size(count: int | None) -> str:
    """Return a number of bytes in words."""
    value = count or 0
    text = f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"
    return text.replace(".00 MB", " MB")


def line(row: str) -> str | None:
    """Return a row of the README's table; None if it is not measured yet."""
    dense, ours = measured(row, "dense").get("dense"), measured(row, "compressed")
    int8 = ours.get("int8")
    if dense is None or int8 is None:
        return None
    before, after = dense.variant, int8.variant
    smaller = (before.bytes or 0) / (after.bytes or 1)
    latency = after.latency
    ratio = next((r for r in latency.ratios if r.over == "dense"), None) if latency else None
    cells = (
        title(row),
        f"{100 * dense.accuracy:.2f} → {100 * int8.accuracy:.2f} %",
        f"{before.parameters:,} → {after.parameters:,}",
        f"{size(before.bytes)} → {size(after.bytes)}",
        f"{smaller:.1f}x",
        f"{ratio.ratio:.1f}x" if ratio else "not timed",
    )
    return f"| {' | '.join(cells)} |"


def readme_table() -> str:
    """Return the table of the README, and what is missing in it."""
    lines = {row: line(row) for row in ROWS}
    head = "| | test accuracy | parameters | file | smaller | faster, batch 1 |"
    found = [text for text in lines.values() if text]
    missing = [title(row) for row, text in lines.items() if text is None]
    text = "\n".join([head, "| --- |" + " --- |" * 5, *found])
    return text + (f"\n\nNot measured yet: {'; '.join(missing)}." if missing else "")


def results_table() -> str:
    """Return the table of docs/results.md: every network that was measured."""
    head = "| | training | variant | test accuracy | parameters | MACs | file |"
    lines = [head, "| --- |" + " --- |" * 6]
    for row in ROWS:
        for stage in ROWS[row].stages:
            for name, found in measured(row, stage).items():
                variant = found.variant
                macs = "" if variant.macs is None else f"{variant.macs:,}"
                cells = (title(row), stage, name, found.percent, f"{variant.parameters:,}", macs)
                lines.append(f"| {' | '.join(cells)} | {variant.bytes or 0:,} bytes |")
    return "\n".join(lines)


def points() -> Iterator[tuple[str, Measured]]:
    """Yield what the picture shows, each with its label."""
    for row in ROWS:
        dense, ours = measured(row, "dense"), measured(row, "compressed")
        narrow = measured(row, "narrow")
        named = (("dense", dense.get("dense")), ("narrow, int8", narrow.get("int8")))
        for label, found in (*named, ("pruned, int8", ours.get("int8"))):
            if found is not None:
                yield label, found


def described() -> str:
    """Return the points of the picture in words."""
    return "; ".join(
        f"{title(found.row)} {label}: {found.variant.bytes} bytes, {found.correct} correct"
        for label, found in points()
    )


def draw() -> str:
    """Return the picture: accuracy on the test data against the bytes of the file."""
    looks = {"dense": (QUIET, "s"), "narrow, int8": (SECOND, "^"), "pruned, int8": (FIRST, "o")}
    with styled():
        figure = new_figure(3.2)
        axes = figure.subplots()
        labelled: set[str] = set()
        for label, found in points():
            colour, marker = looks[label]
            axes.errorbar(
                found.variant.bytes,
                100 * found.accuracy,
                yerr=100 * found.half_interval,
                color=colour,
                marker=marker,
                capsize=2,
                linestyle="",
                label=None if label in labelled else label,
            )
            labelled.add(label)
            place = (found.variant.bytes, 100 * found.accuracy)
            narrow = (
                label == "narrow, int8"
            )  # near the others of its size: its name is on the right
            axes.annotate(
                title(found.row) if label == "dense" else title(found.row).partition(",")[0],
                place,
                (6, -12) if narrow else (-6, 4),
                textcoords="offset points",
                ha="left" if narrow else "right",
            )
        axes.set(xscale="log", xlabel="size of the file", ylabel="test accuracy, %")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: size(round(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.25)
        axes.grid(visible=True)
        axes.legend(loc="lower right")
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Description": described()})
    return written.getvalue()


def filled(text: str, parts: dict[str, str]) -> str:
    """Return a page with its marked parts replaced.

    Raises:
        SystemExit: If a mark is missing.
    """
    for name, part in parts.items():
        before, begin, rest = text.partition(f"<!-- results: {name} -->\n")
        _, end, after = rest.partition("<!-- end of results -->")
        if not end:
            raise SystemExit(f"there is no <!-- results: {name} --> with an end")
        text = f"{before}{begin}{part}\n{end}{after}"
    return text


def pages() -> dict[Path, str]:
    """Return the text of the pages as it should be, by path."""
    parts = {
        "README.md": {"table": readme_table()},
        "docs/results.md": {
            "all": results_table(),
            "kept": kept_table(NAMES),
            "controls": controls_table(NAMES),
        },
    }
    return {ROOT / n: filled((ROOT / n).read_text("utf-8"), found) for n, found in parts.items()}


def main() -> None:
    """Write the pages and the picture."""
    for path, text in pages().items():
        path.write_text(text, "utf-8")
    PICTURE.write_text(draw(), "utf-8")


if __name__ == "__main__":
    main()
