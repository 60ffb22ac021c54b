"""Draw the pictures of docs/concepts.md: `python docs/_build/pictures.py`."""

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "pictures"
PLAIN, GONE, LINE, INT8, TEXT = "#dfe5ef", "#ef6c4d", "#5b6578", "#bfe3c6", "#1d2433"


def text(x: float, y: float, words: str, size: int = 13, anchor: str = "middle") -> str:
    """Return one line of text."""
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}">{words}</text>'


def box(x: float, y: float, w: float, h: float, fill: str = PLAIN, dash: str = "") -> str:
    """Return a rectangle."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="2" fill="{fill}" '
        f'stroke="{LINE}"{dashed}/>'
    )


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return an arrow."""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{LINE}" stroke-width="1.5" '
        'marker-end="url(#tip)"/>'
    )


def grid(x: float, y: float, rows: int, columns: int, removed: set[tuple[int, int]]) -> list[str]:
    """Return the cells of a weight: rows are filters, columns the inputs that they read."""
    size = 22
    return [
        box(x + c * size, y + r * size, size, size, GONE if (r, c) in removed else PLAIN)
        for r in range(rows)
        for c in range(columns)
    ]


def picture(name: str, width: int, height: int, label: str, parts: list[str]) -> None:
    """Write one SVG file."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'role="img" aria-label="{label}" font-family="sans-serif" fill="{TEXT}">\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>\n'
    )
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text(head + "\n".join(parts) + "\n</svg>\n", "utf-8")


def channel_groups() -> None:
    """Two convolutions whose outputs are added, and one that reads the sum: channel 1 goes."""
    row = {(1, c) for c in range(3)}
    parts = [
        text(380, 28, "One channel, all that must go with it (orange)", 16),
        # the first branch: weight, bias, norm
        text(93, 62, "conv A, weight"),
        *grid(60, 72, 4, 3, row),
        text(52, 121, "filter 1", 12, "end"),
        text(160, 62, "bias"),
        *grid(149, 72, 4, 1, {(1, 0)}),
        text(212, 62, "norm"),
        *grid(201, 72, 4, 1, {(1, 0)}),
        arrow(126, 116, 147, 116),
        arrow(172, 116, 199, 116),
        # the second branch
        text(93, 207, "conv B, weight"),
        *grid(60, 217, 4, 3, row),
        text(52, 266, "filter 1", 12, "end"),
        text(160, 207, "bias"),
        *grid(149, 217, 4, 1, {(1, 0)}),
        arrow(126, 261, 147, 261),
        # the sum
        arrow(224, 116, 318, 166),
        arrow(172, 261, 318, 196),
        '<circle cx="334" cy="181" r="17" fill="#ffffff" stroke="#5b6578" stroke-width="1.5"/>',
        text(334, 187, "+", 18),
        text(312, 238, "the sum ties channel 1", 13, "start"),
        text(312, 255, "of A to channel 1 of B", 13, "start"),
        arrow(352, 181, 428, 181),
        text(390, 172, "ReLU", 12),
        # the depthwise convolution
        text(446, 122, "depthwise"),
        *grid(435, 132, 4, 1, {(1, 0)}),
        arrow(458, 181, 550, 181),
        # what reads it
        text(600, 105, "conv C, weight"),
        *grid(556, 115, 6, 4, {(r, 1) for r in range(6)}),
        text(589, 266, "input 1 of", 12),
        text(589, 282, "every filter", 12),
        text(660, 178, "its filters", 12, "start"),
        text(660, 194, "stay", 12, "start"),
    ]
    label = (
        "A filter goes together with its bias, norm, the filter it is added to, and what reads it"
    )
    picture("channel_groups.svg", 760, 325, label, parts)


def quantise_pairs() -> None:
    """A convolution with quantise/dequantise pairs, and what a runtime makes of it."""

    def op(x: float, y: float, w: float, name: str, fill: str = PLAIN) -> list[str]:
        return [box(x, y, w, 34, fill), text(x + w / 2, y + 22, name)]

    parts = [
        text(380, 28, "In the file: pairs around the layer", 16),
        text(20, 92, "float", 12, "start"),
        arrow(50, 88, 78, 88),
        *op(80, 71, 66, "quantise"),
        arrow(146, 88, 166, 88),
        *op(168, 71, 80, "dequantise"),
        arrow(248, 88, 318, 88),
        *op(320, 71, 120, "conv + ReLU"),
        arrow(440, 88, 508, 88),
        *op(510, 71, 66, "quantise"),
        arrow(576, 88, 596, 88),
        *op(598, 71, 80, "dequantise"),
        arrow(678, 88, 712, 88),
        text(716, 92, "float", 12, "start"),
        text(164, 60, "input: uint8, one scale", 12),
        text(594, 60, "output: uint8, one scale", 12),
        *op(300, 136, 60, "int8", INT8),
        *op(380, 136, 84, "dequantise"),
        arrow(360, 153, 378, 153),
        arrow(422, 136, 402, 107),
        text(330, 188, "weight: int8, a scale for each output channel", 12),
        '<line x1="20" y1="212" x2="740" y2="212" stroke="#c5ccd8" stroke-dasharray="4 4"/>',
        text(380, 240, "What the runtime runs: one int8 operation", 16),
        text(172, 286, "uint8", 12),
        arrow(194, 282, 268, 282),
        *op(270, 265, 220, "int8 conv, sums in int32", INT8),
        arrow(490, 282, 564, 282),
        text(588, 286, "uint8", 12),
    ]
    label = "A dequantised convolution between quantise pairs is run as one int8 operation"
    picture("quantise_pairs.svg", 760, 320, label, parts)


if __name__ == "__main__":
    channel_groups()
    quantise_pairs()
