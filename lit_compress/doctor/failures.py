"""An error that a part of the run raises, as an answer with its remedy."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from lit_compress.doctor.finding import Answer, error
from lit_compress.errors import LitCompressError

#: Words that begin what to do, in the messages of this package.
_VERBS = """
    add allow average bring call check clean count drop empty exclude export fix give include
    install keep leave let list load lower make move name pad prune raise reduce remove rename
    run save set start take train unfreeze update use wait write
"""
#: Where a message goes over from what is wrong to what to do.
_VERB = "|".join(_VERBS.split())
TURN = re.compile(rf"[:;] (?=(?:{_VERB})\b)|\. (?=(?:{_VERB.title()})\b)| \((?=(?:{_VERB})\b)")
#: What to do about a message that says what there is to choose from.
CORRECT = "correct this setting: a fit stops with the same error"
#: Largest length of a message of other packages.
LENGTH = 300
#: Folders whose code is not the user's own.
PACKAGE = str(Path(__file__).parents[1])
FOREIGN = ("site-packages", "dist-packages", PACKAGE, "<")


def answer_of(raised: BaseException, remedy: str = "") -> Answer:
    """Return an error as an answer.

    The messages of this package end with what to do. For other errors, it is what the caller says,
    with the line of the user's code that was running.

    Args:
        raised: The error.
        remedy: What to do about an error that is not of this package.

    Example:
        >>> from lit_compress.errors import ScheduleError
        >>> found = answer_of(ScheduleError("schedule.last is 9: set schedule.last to 4 at most"))
        >>> found.found
        'schedule.last is 9'
        >>> found.remedy
        'set schedule.last to 4 at most'
    """
    own = next((one for one in _chain(raised) if isinstance(one, LitCompressError)), None)
    if own is not None:
        return error(*split(" ".join(str(own).split())))
    message = " ".join(str(raised).split())[:LENGTH]
    place = _place(raised)
    found = f"{type(raised).__name__}: {message}" if message else type(raised).__name__
    way_out = remedy or "make this work first: a fit fails in the same way"
    return error(found, f"{way_out} (raised at {place})" if place else way_out)


def split(message: str) -> tuple[str, str]:
    """Return what a message of this package says is wrong, and what to do.

    Args:
        message: The message.

    Returns:
        Both. A message that lists what can be given, and no more, is what is wrong.

    Example:
        >>> split("the folder is a file: name another dirpath")
        ('the folder is a file', 'name another dirpath')
    """
    found = TURN.search(message)
    if found is None:
        return message, CORRECT
    remedy = message[found.end() :].rstrip(".")
    if found[0] == " (":
        remedy = remedy.removesuffix(")")
    return message[: found.start()], remedy[:1].lower() + remedy[1:]


def _chain(raised: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = raised
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__
    return chain


def _place(raised: BaseException) -> str:
    """Return file and line of the innermost call that is not in a library; empty if none is."""
    frames = traceback.extract_tb(raised.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in FOREIGN)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""
