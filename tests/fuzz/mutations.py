"""Read files that were changed at random, as an attacker would: each ends in a typed error.

    python tests/fuzz/mutations.py --count 10000 --seed 0

Artefacts (card, model, stored inputs, weights; with the hashes made to fit), checkpoints and rule
files are changed: bytes flipped, cut, repeated, numbers and keys replaced. Each is read as a user
reads it; every twentieth is a checkpoint that a fit with callbacks goes on from, and its error must
name the file. A file that is read although it was changed is counted apart. The script fails if an
error is not one of the package's, or if a file takes longer than 10 seconds.

    python tests/fuzz/mutations.py --count 500 --kind resume

takes files of one kind only.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from lightning.pytorch import Trainer
from onnx import parser
from resumed import FITS, Resumes, fit
from resumed import change_checkpoint as change_state

from lit_compress import load, load_from_checkpoint, restore
from lit_compress.artifact import Card, Fidelity, Variant, sha256, write_card, write_replay
from lit_compress.checkpoints.saved_weights import save_weights
from lit_compress.errors import LitCompressError
from lit_compress.modules import MobileNetV2
from lit_compress.pruning.rules.files import read_rules

#: Longest time for one file, in seconds.
LONGEST = 10.0
#: What a number in a file is replaced by.
NUMBERS = (0, -1, 1.5, 1e308, 2**31, 2**63, 10**18, True, None, "x", [], {}, [1], {"a": 1})


@dataclass
class Tally:
    """What came of the files.

    Attributes:
        typed: Files that ended in an error of the package.
        read: Files that were read although they were changed.
        raw: By kind of file and error, those that ended in another error.
        slow: Files that took too long.
        resumed: Fits that went on from a changed checkpoint, or were refused with its name.
    """

    typed: int = 0
    read: int = 0
    resumed: int = 0
    raw: Counter[str] = field(default_factory=Counter)
    slow: list[str] = field(default_factory=list)


def classifier() -> MobileNetV2:
    return MobileNetV2(width=0.25, in_channels=1, stem="cifar")


def make_artifact(folder: Path) -> Path:
    """Write a small artefact by the package's own writers."""
    folder.mkdir(parents=True)
    text = """
        <ir_version: 10, opset_import: ["": 20]>
        scaled (float[batch, 4] x) => (float[batch, 3] y)
        <float[4, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float[3] b = {1, 2, 3}>
        { z = MatMul(x, w)
          y = Add(z, b) }
    """
    onnx.save(parser.parse_model(text), folder / "model.onnx")
    inputs = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    weights = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    write_replay(folder / "replay.npz", [inputs], inputs @ weights + np.float32([1, 2, 3]))
    torch.manual_seed(0)
    save_weights(classifier(), folder / "model.safetensors")
    names = ("model.onnx", "replay.npz", "model.safetensors")
    int8 = Variant("int8", 15, 15, file="model.onnx", fidelity=Fidelity(100.0, 1.0, 8))
    files = {name: sha256(folder / name) for name in names}
    write_card(folder, Card("demo", (int8,), {}, files=files))
    return folder


def make_checkpoint(path: Path) -> Path:
    """Write a checkpoint by Lightning."""
    trainer = Trainer(logger=False, enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(classifier())
    trainer.save_checkpoint(path)
    return path


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change bytes at random places."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 4, 32))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Leave a part out."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 7, 100, len(data))) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """Write a part twice, or a run of one byte."""
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice((1, 9, 300))]
    return data[:start] + (part if rng.random() < 0.5 else part[:1] * 1000) + data[start:]


BYTES = (flip, cut, repeat)


def change_value(value: Any, rng: random.Random) -> Any:
    """Replace one part of a JSON value."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: change_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], change_value(value[place], rng), *value[place + 1 :]]
    return rng.choice(NUMBERS)


def change_json(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(change_value(json.loads(data), rng)).encode()


def change_npz(data: bytes, rng: random.Random) -> bytes:
    """Change the content of an entry, and pack it again."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, rng.choice(BYTES)(old.read(name), rng))
    return file.getvalue()


def change_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the header, and make its length fit."""
    size = int.from_bytes(data[:8], "little")
    header = change_value(json.loads(data[8 : 8 + size]), rng)
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        for key, text in header["__metadata__"].items():
            if rng.random() < 0.5 and str(text)[:1] in "{[":
                header["__metadata__"][key] = json.dumps(change_value(json.loads(text), rng))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def change_checkpoint(data: bytes, rng: random.Random) -> bytes:
    """Change a value in a checkpoint, and save it again."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    target = content
    if rng.random() < 0.5:
        target = content.get(rng.choice(["hyper_parameters", "state_dict", "callbacks"])) or content
    key = rng.choice(list(target))
    target[key] = rng.choice((*NUMBERS, torch.zeros(2), torch.zeros(3, device="meta")))
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def fitting(folder: Path, rng: random.Random) -> None:
    """Write the hashes of the changed files, and mostly the card's own, as an attacker would."""
    try:
        card = json.loads((folder / "card.json").read_bytes())
        for name in card["files"]:
            card["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        rest = {key: value for key, value in card.items() if key != "digest"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        if rng.random() < 0.9:
            rest["digest"] = hashlib.sha256(text.encode()).hexdigest()
        (folder / "card.json").write_text(json.dumps(rest))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        return  # the card is damaged: it is read as it is


def mutate(name: str, data: bytes, rng: random.Random) -> bytes:
    """Change a file by bytes or, if its kind is known, by what it holds."""
    kinds: dict[str, Callable[[bytes, random.Random], bytes]] = {
        "card.json": change_json,
        "replay.npz": change_npz,
        "model.safetensors": change_safetensors,
        "last.ckpt": change_checkpoint,
    }
    change = kinds.get(name)
    return change(data, rng) if change and rng.random() < 0.6 else rng.choice(BYTES)(data, rng)


#: The kinds of files.
KINDS = ("card.json", "model.onnx", "replay.npz", "model.safetensors", "ckpt", "rules")
#: How many of the files are checkpoints that a fit goes on from: a fit takes longer than a file.
RESUMED = 0.05
RULES = b'- {pattern: "model.features.*", ratio: 0.5}\n- {pattern: "model.*", skip: true}\n'


class Fuzzer:
    """Changes files and reads them.

    Args:
        folder: An empty folder to work in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifact = make_artifact(folder / "good")
        self.checkpoint = make_checkpoint(folder / "last.ckpt").read_bytes()
        self.resumes = Resumes(folder / "resumed")
        self.tally = Tally()

    def one(self, number: int, seed: int, kind: str | None = None) -> None:
        """Change and read a file; its number and the seed tell which.

        Args:
            number: Number of the file.
            seed: Random seed.
            kind: Its kind. Default: drawn.
        """
        rng = random.Random(f"{seed}-{number}")
        drawn = "resume" if rng.random() < RESUMED else rng.choice(KINDS)
        kind = kind or drawn
        read = {
            "ckpt": self.read_checkpoint,
            "rules": self.read_rules,
            "resume": self.resume,
        }.get(kind)
        if kind == "resume":
            self.resumes.prepare()  # is no part of the time
        start = time.monotonic()
        try:
            read(rng) if read else self.read_artifact(kind, rng)
            self.tally.read += 1
        except LitCompressError:
            self.tally.typed += 1
        except Exception as error:
            text = f"{type(error).__name__}: {str(error)[:100]}"
            self.tally.raw[f"{kind}: {text} (number {number})"] += 1
        if time.monotonic() - start > LONGEST:
            self.tally.slow.append(f"{kind} (number {number})")

    def read_artifact(self, name: str, rng: random.Random) -> None:
        changed = self.folder / "changed"
        shutil.rmtree(changed, ignore_errors=True)
        shutil.copytree(self.artifact, changed)
        (changed / name).write_bytes(mutate(name, (changed / name).read_bytes(), rng))
        fitting(changed, rng)
        if name == "model.safetensors":
            restore(changed, MobileNetV2)
        else:
            load(changed)

    def read_checkpoint(self, rng: random.Random) -> None:
        path = self.folder / "changed.ckpt"
        path.write_bytes(mutate("last.ckpt", self.checkpoint, rng))
        load_from_checkpoint(MobileNetV2, path)

    def resume(self, rng: random.Random) -> None:
        """Go on from a checkpoint; an error of the package must name it."""
        name = rng.choice(list(FITS))
        data, path = self.resumes.checkpoints[name], self.folder / "resumed.ckpt"
        state = rng.random() < 0.85
        path.write_bytes(
            change_state(data, NUMBERS, rng) if state else rng.choice(BYTES)(data, rng)
        )
        try:
            fit(name, self.folder / "run", path)
        except LitCompressError as error:
            if str(path) not in str(error):
                raise ValueError(f"the file is not named: {name}: {error}") from error
            self.tally.resumed += 1
            raise
        self.tally.resumed += 1

    def read_rules(self, rng: random.Random) -> None:
        path = self.folder / "rules.yaml"
        path.write_bytes(rng.choice(BYTES)(RULES, rng))
        read_rules(path)


def fuzz(count: int, seed: int, folder: Path, kind: str | None = None) -> Tally:
    """Change and read files.

    Args:
        count: Number of files.
        seed: Random seed.
        folder: An empty folder to work in.
        kind: Kind of all files. Default: drawn for each.
    """
    fuzzer = Fuzzer(folder)
    for number in range(count):
        fuzzer.one(number, seed, kind)
    return fuzzer.tally


def main() -> int:
    """Print what came of the files; 1 if any ended in a raw error or took too long."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kind", choices=(*KINDS, "resume"))
    given = options.parse_args()
    logging.disable()  # of the fits
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(given.count, given.seed, Path(folder), given.kind)
    for error, times in tally.raw.most_common(20):
        print(f"{times} x {error}")
    fine = tally.typed + tally.read
    ends = f"ended in a typed error ({tally.typed}) or were read ({tally.read})"
    print(f"{fine} of {given.count} {ends}")
    print(f"{tally.resumed} of them were checkpoints that a fit went on from or refused by name")
    print(f"{len(tally.slow)} took longer than {LONGEST:g} s")
    return int(bool(tally.raw or tally.slow))


if __name__ == "__main__":
    sys.exit(main())
