"""The look of all figures, and names of others made fit to be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Colours of the figures. The page replaces each of them by one that suits light or dark.
FIRST, SECOND, QUIET, INK = "#1b6ca8", "#b4500b", "#6b7280", "#000000"
#: Width of every figure in inches, and height of a row of bars.
WIDTH, ROW = 7.0, 0.22
#: Longest name that is drawn; the table below a figure has the whole one.
LONGEST = 36
#: Settings of matplotlib. A name of a layer is never read as a formula.
SETTINGS = {
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": QUIET,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lit-compress",  # the same card gives the same bytes
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the look of this package, whatever matplotlib is set to outside."""
    from matplotlib import rc_context, rcParamsDefault

    backend = {"backend", "backend_fallback"}
    usual = {key: rcParamsDefault[key] for key in rcParamsDefault if key not in backend}
    with rc_context({**usual, **SETTINGS}):
        yield


def new_figure(height: float) -> Any:
    """Return an empty figure; call it inside :func:`styled`.

    Args:
        height: Height in inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def plain(text: str) -> str:
    r"""Return a text with a mark in place of each character that cannot be shown.

    Example:
        >>> print(ascii(plain("conv1" + chr(0))))
        'conv1\ufffd'
    """
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def short(name: str) -> str:
    """Return a name as it is drawn: its end if it is long, as the end tells layers apart.

    Example:
        >>> short("features.0")
        'features.0'
        >>> len(short("block." * 20))
        36
    """
    name = plain(name)
    return name if len(name) <= LONGEST else "\u2026" + name[-(LONGEST - 1) :]


def shades() -> Any:
    """Return a colour map from transparent to the first colour, which suits light and dark."""
    from matplotlib.colors import ListedColormap, to_rgb

    return ListedColormap([(*to_rgb(FIRST), level / 15) for level in range(16)])
