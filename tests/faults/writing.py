"""Replace what the package writes, while each call of the operating system fails or is the last.

    PYTHONPATH=tests python -m faults.writing

In turn, each open, write, flush, rename, change and removal raises an OSError, or the process is
killed in it. After each fault the public reader finds all of the old content or all of the new; the
next writer removes what a killed one left.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from lightning.pytorch import Trainer
from onnx import parser
from torch import nn

from faults.system_calls import How, failing
from lit_compress import load, pack
from lit_compress.artifact import Card, Fidelity, Variant, sha256, write_card, write_replay
from lit_compress.artifact.write import folder_swap
from lit_compress.checkpoints.reading import read_checkpoint
from lit_compress.checkpoints.saved_weights import read_safetensors, save_weights
from lit_compress.cli_report import write_report
from lit_compress.errors import CheckpointError, LitCompressError
from lit_compress.modules import ImageClassifier
from lit_compress.pruning.rules.files import read_rules, write_rules
from lit_compress.pruning.rules.rule import Rule
from lit_compress.sensitivity.table import Row, Table

#: Stands for the content of a file that its reader refuses by name.
REFUSED = "refused by its name"
#: Seconds after which a process that should have been killed is given up.
PATIENCE = 60
NETWORK = """
    <ir_version: 10, opset_import: ["": 20]>
    scaled (float[batch, 2] x) => (float[batch, 2] y)
    <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }
"""


@dataclass(frozen=True)
class Writer:
    """A function of the package that replaces a file or folder, and one that reads it.

    Attributes:
        name: What it writes.
        write: Writes a version, 1 or 2, into a folder.
        read: Returns what the public reader finds there, for comparison.
    """

    name: str
    write: Callable[[Path, int], object]
    read: Callable[[Path], Any]


def classifier(version: int) -> ImageClassifier:
    """Return a small module, whose weights a version tells."""
    layer = nn.Linear(4, 3)
    nn.init.constant_(layer.weight, version)
    nn.init.zeros_(layer.bias)
    return ImageClassifier(nn.Sequential(nn.Flatten(), layer), in_channels=1)


def write_artifact(folder: Path, version: int) -> None:
    """Write an artefact as the end of a fit does: files, stored inputs, weights, card."""
    with folder_swap(folder / "artifact") as part:
        onnx.save(parser.parse_model(NETWORK.replace("1, 2", f"{version}, 2")), part / "model.onnx")
        inputs = np.float32([[1, 0], [0, 1]])
        write_replay(part / "replay.npz", [inputs], np.float32([[version, 2], [3, 4]]))
        save_weights(classifier(version), part / "model.safetensors")
        names = ("model.onnx", "replay.npz", "model.safetensors")
        int8 = Variant("int8", 4, 4, file="model.onnx", fidelity=Fidelity(100.0, 1.0, 2))
        files = {name: sha256(part / name) for name in names}
        write_card(part, Card(f"version {version}", (int8,), {}, files=files))


def read_artifact(folder: Path) -> Any:
    model = load(folder / "artifact")
    weights, _ = read_safetensors(folder / "artifact" / "model.safetensors")
    return model.card.to_json(), model(np.float32([[1, 0]])).tolist(), _plain(weights)


def write_packed(folder: Path, version: int) -> None:
    pack(folder.parent / f"source-{version}" / "artifact", folder / "packed")


def read_packed(folder: Path) -> Any:
    model = load(folder / "packed")
    return model.card.to_json(), model(np.float32([[1, 0]])).tolist()


def write_dense(folder: Path, version: int) -> None:
    save_weights(classifier(version), folder / "dense.safetensors")


def read_dense(folder: Path) -> Any:
    weights, metadata = read_safetensors(folder / "dense.safetensors")
    return _plain(weights), metadata


def write_scan(folder: Path, version: int) -> None:
    table = Table(folder, {"monitor": "val_acc"})
    for number in range(50 * version):
        table.add(Row("net.0", Fraction(number, 100), number, 100, {"val_acc": number / version}))
    table.write()


def read_scan(folder: Path) -> Any:
    return list(Table.opened(folder, {"monitor": "val_acc"}).rows.values())


def write_rule_file(folder: Path, version: int) -> None:
    rules = [Rule(f"layer{number}.*", Fraction(version, 10), "") for number in range(20)]
    write_rules(rules, folder / "rules.yaml")


def read_rule_file(folder: Path) -> Any:
    return [(rule.pattern, rule.ratio) for rule in read_rules(folder / "rules.yaml")]


def write_page(folder: Path, version: int) -> None:
    write_report(folder.parent / f"source-{version}", folder / "report.html")


def write_checkpoint(folder: Path, version: int) -> None:
    """Write a checkpoint by Lightning, with the folder for temporary files on its file system."""
    _save(folder, version, _made(folder.parent / "temporary"))


def write_across(folder: Path, version: int) -> None:
    """Write a checkpoint by Lightning, with the folder for temporary files on another one."""
    with tempfile.TemporaryDirectory(dir=OTHER_DISK) as temporary:
        _save(folder, version, Path(temporary))


def _save(folder: Path, version: int, temporary: Path) -> None:
    trainer = Trainer(logger=False, enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(classifier(version))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        trainer.save_checkpoint(folder / "last.ckpt")


def read_last(folder: Path) -> Any:
    """Return the weights of a checkpoint, or that it is refused by its name."""
    path = folder / "last.ckpt"
    try:
        return _plain(read_checkpoint(path)["state_dict"])
    except CheckpointError as error:
        return REFUSED if str(path) in str(error) else str(error)


def _plain(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {
        name: (tuple(value.shape), float(value.double().sum())) for name, value in weights.items()
    }


#: A file system next to that of temporary files, as Linux has it.
OTHER_DISK = Path("/dev/shm")  # noqa: S108 - files go into a new folder of it
#: Lightning's writing where temporary files are on another file system; a part may be left.
ACROSS = Writer("checkpoint across file systems", write_across, read_last)
#: What is written, by the package and, as to the checkpoint, by Lightning.
WRITERS = (
    Writer("artefact", write_artifact, read_artifact),
    Writer("packed artefact", write_packed, read_packed),
    Writer("dense weights", write_dense, read_dense),
    Writer("scan", write_scan, read_scan),
    Writer("rule file", write_rule_file, read_rule_file),
    Writer("checkpoint", write_checkpoint, read_last),
    Writer("report", write_page, lambda folder: (folder / "report.html").read_text("utf-8")),
)


@dataclass
class Found:
    """How many faults there were.

    Attributes:
        faults: Their number.
        wrong: The calls after which something was wrong.
        parts: How often the file was a part, which its reader refuses by name.
    """

    faults: int
    wrong: list[str]
    parts: int = 0


def tried(writer: Writer, how: How, folder: Path, stride: int = 1) -> Found:
    """Replace what a writer has written, with a fault in each call in turn.

    Args:
        writer: The writer.
        how: The fault.
        folder: An empty folder to work in.
        stride: Take each so many-th call only.
    """
    for version in (1, 2):
        write_artifact(_made(folder / f"source-{version}"), version)
        writer.write(_made(folder / f"whole-{version}"), version)
    whole = [writer.read(folder / f"whole-{version}") for version in (1, 2)]
    clean = _listed(folder / "whole-1")
    place, found = _made(folder / "place"), Found(0, [])
    writer.write(place, 1)
    for number in itertools.count(1, stride):
        failed = _faulty(writer, how, place, number)
        if not failed:
            return found
        found.faults += 1
        content = writer.read(place)
        found.parts += content is REFUSED
        if content not in whole and not (writer is ACROSS and content is REFUSED):
            found.wrong.append(f"{failed} (call {number}): neither the old nor the new")
        writer.write(place, 1)
        if _listed(place) != clean or writer.read(place) != whole[0]:
            found.wrong.append(f"{failed} (call {number}): left {_listed(place) - clean}")
            shutil.rmtree(place)
            writer.write(_made(place), 1)
    return found


def _faulty(writer: Writer, how: How, place: Path, number: int) -> str:
    """Write the new version with a fault; return the call that failed, empty if none did."""
    if how == "kill":
        return _killed(writer, place, number)
    with failing(number, how) as calls, suppress(OSError, LitCompressError):
        writer.write(place, 2)
    return calls.failed


def _killed(writer: Writer, place: Path, number: int) -> str:
    process = os.fork()
    if process == 0:
        signal.alarm(PATIENCE)
        status = 1
        try:
            with failing(number, "kill"):
                writer.write(place, 2)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "kill"
    if status:
        raise RuntimeError(f"the process of call {number} ended with the status {status}")
    return ""


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _listed(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def main(writers: Sequence[Writer] = WRITERS) -> int:
    """Print what came of all faults; 1 if any left something wrong."""
    warnings.simplefilter("ignore")
    logging.disable()
    faults = wrong = 0
    for writer in writers:
        for how in get_args(How):
            with tempfile.TemporaryDirectory() as folder:
                found = tried(writer, how, Path(folder))
            print(f"{writer.name}, {how}: {found.faults - len(found.wrong)} of {found.faults}")
            for line in found.wrong:
                print(f"  {line}")
            faults, wrong = faults + found.faults, wrong + len(found.wrong)
    print(f"{faults - wrong} of {faults} left the old or the new, and nothing else")
    return int(wrong > 0) or _across()


def _across() -> int:
    """Print what comes of a checkpoint whose temporary file is on another file system."""
    for how in get_args(How) if OTHER_DISK.is_dir() else ():
        with tempfile.TemporaryDirectory() as folder:
            found = tried(ACROSS, how, Path(folder))
        print(f"{ACROSS.name}, {how}: {found.parts} of {found.faults} left a part, all refused")
        if found.wrong:
            print("\n".join(found.wrong))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
