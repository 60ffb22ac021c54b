"""Write an artefact as a folder that can be uploaded to the Hugging Face Hub."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from lit_compress.artifact.card import Card
from lit_compress.artifact.folder.card import read_card
from lit_compress.artifact.folder.checksums import check_files
from lit_compress.artifact.write import CARD, check_target, folder_swap
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.files.reading import as_path, reading
from lit_compress.report.table import card_table

#: The page of a repository, which the Hub shows.
PAGE = "README.md"
#: The page; its first lines are what the Hub reads, see
#: https://huggingface.co/docs/hub/model-cards.
TEXT = """\
---
library_name: lit-compress
tags:
- onnx
- int8
- pruning
- quantization
---

# Compressed network

{fence}text
{run}

{table}
{fence}

```python
import lit_compress

net = lit_compress.from_pretrained("OWNER/NAME")  # or the path of this folder
outputs = net(batch)  # a numpy array for each input, the batch first
```

`card.json` has all that was measured, and the SHA-256 of each file.
"""


def save_pretrained(artifact: str | Path, save_directory: str | Path) -> Path:
    """Write an artefact, with a page for readers, as a folder to upload to the Hugging Face Hub.

    ``hf upload OWNER/NAME FOLDER`` uploads it; :func:`from_pretrained` loads it, from the folder or
    from there. The artefact is checked first, and its files are copied byte for byte.

    Args:
        artifact: The artefact folder.
        save_directory: The folder to write. An artefact in it is replaced; if it holds anything
            else, such as a clone of a repository, nothing is written.

    Returns:
        The folder.

    Raises:
        ArtifactError: If the artefact is damaged, or the folder cannot be written or holds other
            files.
        InvalidArgumentError: If the folder is the artefact itself.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import lit_compress
        >>> with TemporaryDirectory() as folder:
        ...     saved = lit_compress.save_pretrained("examples/digits_int8", folder)
        ...     net = lit_compress.from_pretrained(saved)
        ...     (saved / "README.md").is_file(), len(net.classes)
        (True, 10)
    """
    source = as_path(artifact, ArtifactError)
    target = as_path(save_directory, ArtifactError)
    card = read_card(source)
    if source.resolve() == target.resolve():
        raise InvalidArgumentError(f"{target} is the artefact itself: name another folder")
    check_files(source, card)
    check_target(target)
    _check_nothing_lost(target)
    with folder_swap(target) as folder, reading(target, ArtifactError, "free space, or try again"):
        for name in (CARD, *card.files):
            shutil.copyfile(source / name, folder / name)
        if PAGE not in card.files:
            (folder / PAGE).write_text(_page(card), encoding="utf-8")
    return target


def _check_nothing_lost(target: Path) -> None:
    """Refuse a folder with files that no earlier call wrote."""
    if not target.is_dir() or not any(target.iterdir()):
        return
    known = {CARD, PAGE, *read_card(target).files}
    if others := sorted(path.name for path in target.iterdir() if path.name not in known):
        raise ArtifactError(
            f"{target} holds {others[0]}, which would be lost: name a folder of its own, and "
            "upload that, or copy its files"
        )


def _page(card: Card) -> str:
    table = card_table(card)
    runs = re.findall("`+", card.run + table)
    fence = "`" * max(3, 1 + max(map(len, runs), default=0))
    return TEXT.format(fence=fence, run=card.run, table=table)
