"""Show the entries of decisions.md under their own numbers: HTML would count them anew."""

import re
from typing import Any


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Return the page with the number of each entry."""
    if page.file.src_uri != "decisions.md":
        return html
    numbers = iter(re.findall(r"^(\d+)\. \*\*", page.markdown, re.MULTILINE))
    html = re.sub(r"<li>(?=\s*(?:<p>)?<strong>)", lambda _: f'<li value="{next(numbers)}">', html)
    if left := list(numbers):
        raise ValueError(f"decisions.md: entries without a list item: {left}")
    return html
