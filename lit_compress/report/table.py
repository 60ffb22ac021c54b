"""A card as a table for the console."""

from __future__ import annotations

from lit_compress.artifact.card import Card, TimingRatio, Variant

UNITS = ("B", "kB", "MB", "GB")


def card_table(card: Card) -> str:
    """Return the card as a table: a row a variant, then what must be known to read it."""
    metric = next((v.metric.name for v in card.variants if v.metric), "metric")
    against = [ratio.over for v in card.variants if v.latency for ratio in v.latency.ratios]
    columns = list(dict.fromkeys(against))
    head = ["variant", metric, "parameters", "non-zero", "MACs", "on disk"]
    rows = [[*head, *(f"speed vs {over}" for over in columns)]]
    rows += [_row(variant, columns) for variant in card.variants]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines + _notes(card))


def _row(variant: Variant, columns: list[str]) -> list[str]:
    speeds = {ratio.over: ratio for ratio in variant.latency.ratios} if variant.latency else {}
    return [
        variant.name,
        f"{variant.metric.value:.4f}" if variant.metric else "-",
        f"{variant.parameters:,}",
        f"{variant.nonzero:,}",
        "-" if variant.macs is None else f"{variant.macs / 1e6:.2f} M",
        "-" if variant.bytes is None else human_bytes(variant.bytes),
        *(_speed(speeds, over, variant.name) for over in columns),
    ]


def _speed(speeds: dict[str, TimingRatio], over: str, name: str) -> str:
    ratio = speeds.get(over)
    if ratio is None:
        return "1" if over == name else "-"
    if not ratio.significant:
        return "no difference"
    return f"{ratio.ratio:.1f}x" if ratio.ratio >= 10 else f"{ratio.ratio:.2f}x"


def _line(row: list[str], widths: list[int]) -> str:
    first, rest = row[0].ljust(widths[0]), zip(row[1:], widths[1:], strict=True)
    return "  ".join([first, *(cell.rjust(width) for cell, width in rest)])


def _notes(card: Card) -> list[str]:
    notes = []
    for variant in card.variants:
        if variant.note:
            notes.append(f"{variant.name}: {variant.note}")
        if fidelity := variant.fidelity:
            notes.append(
                f"{variant.name}: outputs at {fidelity.sqnr_db:.1f} dB of the float network's, the "
                f"same class for {fidelity.agreement:.2%} of {fidelity.n} images"
            )
    measured = [v.metric for v in card.variants if v.metric]
    if measured:
        splits = " and ".join(dict.fromkeys(f"{m.n:,} {m.split} images" for m in measured))
        intervals = [m.interval for m in measured if m.interval]
        width = max(((high - low) / 2 for low, high in intervals), default=0)
        notes.append(
            f"{measured[0].name}: over {splits}"
            + (f", each within {width:.4f} (95 %)" if intervals else "")
        )
    timed = [v.latency for v in card.variants if v.latency]
    if timed:
        notes.append(
            f"speed: batch {timed[0].batch}, {timed[0].threads} thread(s), medians of "
            f"{timed[0].rounds} rounds in turn; 'no difference' where the "
            f"{timed[0].confidence:.0%} interval holds 1"
        )
    for item in card.pruning:
        if item["reached"] < item["target"] - 1e-9:
            notes.append(
                f"{item['callback']}: {item['reached']:.2f} of {item['target']:.2f} reached"
            )
    return notes


def human_bytes(count: int) -> str:
    """Return a number of bytes in the unit that suits it, decimal."""
    size = float(count)
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1000
    return f"{count} B"
