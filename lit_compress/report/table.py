"""Turn a card into a table for the console."""

from __future__ import annotations

from lit_compress.artifact.card import Card
from lit_compress.artifact.variant import Metric, Timing, TimingRatio, Variant

UNITS = ("B", "kB", "MB", "GB")
#: Below this share of int8 weights, the first line says which weights are float, and why.
LOW_INT8_SHARE = 0.9
#: How many of them it names.
NAMED = 5


def card_table(card: Card) -> str:
    """Return a card as a table with a row per variant, followed by notes on the figures.

    If less than nine tenths of the weights of a converted variant are int8, the first line says so.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> dense = Variant("dense", 1000, 1000, macs=2_500_000, bytes=4100)
        >>> int8 = Variant("int8", 1000, 990, macs=2_500_000, bytes=1200)
        >>> print(card_table(Card("digits", (dense, int8), {})))
        variant  metric  parameters  non-zero    MACs  on disk
        -------  ------  ----------  --------  ------  -------
        dense         -       1,000     1,000  2.50 M  4.10 kB
        int8          -       1,000       990  2.50 M  1.20 kB
    """
    rows = table_rows(card)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    first = [text for variant in card.variants if (text := float_weights_text(variant))]
    return "\n".join(first + lines + measurement_notes(card) + unreached_targets(card))


def table_rows(card: Card) -> list[list[str]]:
    """Return the cells of a card's table: the head, then a row per variant.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> table_rows(Card("digits", (Variant("dense", 1000, 990, bytes=4100),), {}))[1]
        ['dense', '-', '1,000', '990', '-', '4.10 kB']
    """
    metric = next((v.metric.name for v in card.variants if v.metric), "metric")
    compared = [ratio.over for v in card.variants if v.latency for ratio in v.latency.ratios]
    baselines = list(dict.fromkeys(compared))
    converted = any(variant.int8_share is not None for variant in card.variants)
    head = ["variant", metric, "parameters", "non-zero", "MACs", "on disk"]
    head += ["int8 weights"] * converted
    rows = [[*head, *(f"speed vs {over}" for over in baselines)]]
    return rows + [_row(variant, baselines, converted) for variant in card.variants]


def float_weights_text(variant: Variant) -> str | None:
    """Return which weights of a converted variant are float, and why, if many are.

    Args:
        variant: Any variant.

    Returns:
        One line; None if at least nine tenths of the weights are int8, or none was converted.

    Example:
        >>> from lit_compress.artifact.variant import FloatWeight
        >>> lstm = FloatWeight("lstm", 0.5, "lstm has no int8 form here")
        >>> print(float_weights_text(Variant("int8", 8, 8, int8_share=0.5, float_weights=(lstm,))))
        int8: only 50% of the weights are int8; float are lstm (50%: lstm has no int8 form here)
    """
    share, weights = variant.int8_share, variant.float_weights
    if share is None or share >= LOW_INT8_SHARE:
        return None
    names = [f"{w.name} ({w.share:.0%}: {w.reason})" for w in weights[:NAMED]]
    if len(weights) > NAMED:
        rest = sum(weight.share for weight in weights[NAMED:])
        names.append(f"and {len(weights) - NAMED} more ({rest:.0%})")
    text = f"{variant.name}: only {share:.0%} of the weights are int8"
    return f"{text}; float are {', '.join(names)}" if names else text


def _row(variant: Variant, baselines: list[str], converted: bool) -> list[str]:
    speeds = {ratio.over: ratio for ratio in variant.latency.ratios} if variant.latency else {}
    return [
        variant.name,
        f"{variant.metric.value:.4f}" if variant.metric else "-",
        f"{variant.parameters:,}",
        f"{variant.nonzero:,}",
        "-" if variant.macs is None else f"{variant.macs / 1e6:.2f} M",
        "-" if variant.bytes is None else human_bytes(variant.bytes),
        *(["-" if variant.int8_share is None else f"{variant.int8_share:.0%}"] * converted),
        *(_speed(speeds, over, variant.name) for over in baselines),
    ]


def _speed(speeds: dict[str, TimingRatio], over: str, name: str) -> str:
    ratio = speeds.get(over)
    if ratio is None:
        return "1" if over == name else "-"
    return speed_text(ratio)


def speed_text(ratio: TimingRatio) -> str:
    """Return how many times faster a variant is, or that there is no significant difference.

    Example:
        >>> speed_text(TimingRatio("dense", 2.5, (2.25, 2.75), significant=True))
        '2.50x'
        >>> speed_text(TimingRatio("dense", 1.01, (0.95, 1.05), significant=False))
        'no difference'
    """
    if not ratio.significant:
        return "no difference"
    return f"{ratio.ratio:.1f}x" if ratio.ratio >= 10 else f"{ratio.ratio:.2f}x"


def _line(row: list[str], widths: list[int]) -> str:
    first, rest = row[0].ljust(widths[0]), zip(row[1:], widths[1:], strict=True)
    return "  ".join([first, *(cell.rjust(width) for cell, width in rest)])


def measurement_notes(card: Card) -> list[str]:
    """Return a line for each fact on how the figures of a card were measured.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> measurement_notes(Card("digits", (Variant("int8", 9, 9, note="not timed"),), {}))
        ['int8: not timed']
    """
    notes = [note for variant in card.variants for note in _variant_notes(variant)]
    if metrics := [variant.metric for variant in card.variants if variant.metric]:
        notes.append(_metric_note(metrics))
    if timed := [variant.latency for variant in card.variants if variant.latency]:
        notes.append(_timing_note(timed[0]))
    return notes


def unreached_targets(card: Card) -> list[str]:
    """Return a line for each pruning callback that did not reach its target.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.artifact import Card
        >>> pruning = ({"callback": "FilterPruning", "target": 0.5, "reached": 0.25},)
        >>> unreached_targets(Card("digits", (), {}, pruning=pruning))
        ['FilterPruning: 0.25 of 0.50 reached']
    """
    return [
        f"{item['callback']}: {item['reached']:.2f} of {item['target']:.2f} reached"
        for item in card.pruning
        if item["reached"] < item["target"] - 1e-9
    ]


def _variant_notes(variant: Variant) -> list[str]:
    notes = [f"{variant.name}: {variant.note}"] if variant.note else []
    if fidelity := variant.fidelity:
        notes.append(
            f"{variant.name}: outputs at {fidelity.sqnr_db:.1f} dB SQNR against the float network, "
            f"{fidelity.agreement_text}"
        )
    return notes


def _metric_note(metrics: list[Metric]) -> str:
    splits = " and ".join(dict.fromkeys(f"{m.n:,} {m.split} images" for m in metrics))
    intervals = [m.interval for m in metrics if m.interval]
    width = max(((high - low) / 2 for low, high in intervals), default=0)
    note = f"{metrics[0].name}: over {splits}"
    return note + (f", each within {width:.4f} (95 %)" if intervals else "")


def _timing_note(timing: Timing) -> str:
    return (
        f"speed: batch {timing.batch}, {counted(timing.threads, 'thread')}, medians of "
        f"{timing.rounds} rounds in turn; 'no difference' where the {timing.confidence:.0%} "
        "interval contains 1"
    )


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "epoch"), counted(2, "epoch")
        ('1 epoch', '2 epochs')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def human_bytes(count: int) -> str:
    """Return a number of bytes as text in the largest decimal unit with a value of at least 1.

    Example:
        >>> human_bytes(1200)
        '1.20 kB'
    """
    size = float(count)
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1000
    return f"{count} B"
