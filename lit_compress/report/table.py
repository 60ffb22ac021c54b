"""Turn a card into a table for the console."""

from __future__ import annotations

from textwrap import wrap

from lit_compress.artifact.card import Card
from lit_compress.artifact.variant import Metric, Timing, TimingRatio, Variant
from lit_compress.runtimes import FormatFile

UNITS = ("B", "kB", "MB", "GB")
#: Below this share of int8 weights, the first line says which weights are float, and why.
LOW_INT8_SHARE = 0.9
#: How many of them it names.
NAMED = 5
#: Width of the console's table and of the lines below it, and of the name of a metric in its head.
COLUMNS, WIDEST_METRIC = 80, 8
#: Share of zeros from which the table shows them; rounding to int8 makes a few.
SOME_ZEROS = 0.05
#: SQNR from which outputs are those of the float network, but for rounding.
SAME_DB = 90


def card_table(card: Card) -> str:
    """Return a card as a table for a console of 80 columns, with notes on the figures.

    A row is a variant; ``time`` is that of one call, and ``vs`` says how many times faster that is.
    If less than nine tenths of the weights of a converted variant are int8, the first line says so.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> dense = Variant("dense", 1000, 1000, macs=2_500_000, bytes=4100)
        >>> int8 = Variant("int8", 1000, 1000, macs=2_500_000, bytes=1200)
        >>> print(card_table(Card("digits", (dense, int8), {})))
        variant  metric  weights    MACs  on disk
        -------  ------  -------  ------  -------
        dense         -    1,000  2.50 M  4.10 kB
        int8          -    1,000  2.50 M  1.20 kB
    """
    rows = [list(row) for row in zip(*_columns(card), strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    first = [text for variant in card.variants if (text := float_weights_text(variant))]
    notes = [
        *measurement_notes(card),
        *faster_files(card),
        *other_formats(card),
        *unreached_targets(card),
    ]
    return "\n".join([*first, *lines, *_wrapped(notes)])


def other_formats(card: Card) -> list[str]:
    """Return a line for each file of another format than ONNX.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.runtimes import FormatFile
        >>> file = FormatFile("litert", ("model-b1.tflite",), 9800, (), (), batch=1, sqnr_db=41.25)
        >>> other_formats(Card("digits", (Variant("int8", 1, 1, formats=(file,)),), {}))
        ['litert, batch 1: model-b1.tflite, 9.80 kB, SQNR 41.2 dB']
    """
    return [_format_line(file) for variant in card.variants for file in variant.formats]


def _format_line(file: FormatFile) -> str:
    parts = [", ".join(file.files), human_bytes(file.bytes)]
    if file.sqnr_db is not None:
        parts.append(f"SQNR {file.sqnr_db:.1f} dB")
    if file.metric is not None:
        parts.append(f"metric {file.metric:.4f}")
    return "; ".join([f"{file.name}: {', '.join(parts)}", *file.notes])


def _columns(card: Card) -> list[list[str]]:
    """Return the columns of the console's table, each with its head."""
    variants = card.variants
    metric = next((v.metric.name for v in variants if v.metric), "metric")
    columns = [
        ["variant", *(v.name for v in variants)],
        [
            metric if len(metric) <= WIDEST_METRIC else "metric",
            *(f"{v.metric.value:.4f}" if v.metric else "-" for v in variants),
        ],
        ["weights", *(_count(v.parameters) for v in variants)],
    ]
    if any(_zeros(v) >= SOME_ZEROS for v in variants):
        columns.append(["zeros", *(f"{_zeros(v):.0%}" for v in variants)])
    columns.append(["MACs", *("-" if v.macs is None else _millions(v.macs) for v in variants)])
    columns.append(
        ["on disk", *("-" if v.bytes is None else human_bytes(v.bytes) for v in variants)]
    )
    if any(v.latency for v in variants):
        columns.append(
            ["time", *(_milliseconds(v.latency.seconds) if v.latency else "-" for v in variants)]
        )
    compared = [ratio.over for v in variants if v.latency for ratio in v.latency.ratios]
    for over in dict.fromkeys(compared):
        head = "vs onnx" if over.endswith(" onnx") else f"vs {over}"
        columns.append([head, *(_speed(v, over) for v in variants)])
    return columns


def _wrapped(notes: list[str]) -> list[str]:
    return [line for note in notes for line in wrap(note, COLUMNS, subsequent_indent="  ")]


def _zeros(variant: Variant) -> float:
    return 1 - variant.nonzero / variant.parameters if variant.parameters else 0.0


def _count(number: int) -> str:
    return f"{number:,}" if number < 10_000_000 else _millions(number)


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number < 1e9 else f"{number / 1e9:.2f} G"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:#.3g}".rstrip(".") + " ms"


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
    return [
        variant.name,
        f"{variant.metric.value:.4f}" if variant.metric else "-",
        f"{variant.parameters:,}",
        f"{variant.nonzero:,}",
        "-" if variant.macs is None else f"{variant.macs / 1e6:.2f} M",
        "-" if variant.bytes is None else human_bytes(variant.bytes),
        *(["-" if variant.int8_share is None else f"{variant.int8_share:.0%}"] * converted),
        *(_speed(variant, over) for over in baselines),
    ]


def _speed(variant: Variant, over: str) -> str:
    """Return how many times faster a variant is than another one, in few characters."""
    ratios = variant.latency.ratios if variant.latency else ()
    ratio = next((ratio for ratio in ratios if ratio.over == over), None)
    if ratio is None:
        return "1" if over == variant.name else "-"
    return speed_text(ratio) if ratio.significant else "same"


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


def faster_files(card: Card) -> list[str]:
    """Return a line if the fp32 file is faster than the int8 file of the same runtime.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.artifact import Card
        >>> ratio = TimingRatio("dense onnx", 0.8, (0.7, 0.9), significant=True)
        >>> timing = Timing("onnxruntime", 1, 1, 1e-3, (9e-4, 1e-3), 0.99, 60, (ratio,))
        >>> faster_files(Card("digits", (Variant("int8", 9, 9, latency=timing),), {}))[0][:38]
        'int8: slower than dense onnx (0.80x) h'
    """
    return [
        f"{variant.name}: slower than {ratio.over} ({speed_text(ratio)}) here: "
        "lit_compress.load(path, weights='fp32') runs the faster file"
        for variant in card.variants
        for ratio in (variant.latency.ratios if variant.latency else ())
        if ratio.over.endswith(" onnx") and ratio.significant and ratio.ratio < 1
    ]


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
    if (fidelity := variant.fidelity) and fidelity.sqnr_db < SAME_DB:
        notes.append(
            f"{variant.name}: outputs at {fidelity.sqnr_db:.1f} dB SQNR against "
            f"{fidelity.reference}, {fidelity.agreement_text}"
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
        f"time: batch {timing.batch}, {counted(timing.threads, 'thread')}, medians of "
        f"{timing.rounds} rounds in turn (x: of the ratios in each round); 'same' where the "
        f"{timing.confidence:.0%} interval contains 1; other processors give other figures"
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
