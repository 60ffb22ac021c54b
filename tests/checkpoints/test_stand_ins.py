import argparse
import enum
import pickle
from collections import OrderedDict, defaultdict, namedtuple
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import AttributeDict
from torch import nn

from lit_compress.checkpoints.stand_ins import class_of, holds_objects, is_read, load_with_stand_ins


class Colour(enum.Enum):
    RED = 1


Pair = namedtuple("Pair", "a b")
RAN: list[int] = []


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return RAN.append, (1,)


class Made:
    def __init__(self) -> None:
        self.state = {"a": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        RAN.append(2)


OBJECTS = {
    "torch.nn.modules.container.Sequential": nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()),
    "functools.partial": partial(torch.optim.SGD, lr=0.1),
    "argparse.Namespace": argparse.Namespace(a=1),
    "pathlib.PosixPath": Path("x"),
    f"{__name__}.Colour": Colour.RED,
    f"{__name__}.Pair": Pair(1, 2),
    f"{__name__}.Made": Made(),
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "a dictionary": AttributeDict(a=AttributeDict(b=2)),
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_objects_have_stand_ins_and_the_rest_is_read(name: str, tmp_path: Path) -> None:
    RAN.clear()
    plain = {"w": torch.arange(3), "a": [1, (2.5, "x")], "s": {1, 2}}
    torch.save({"plain": plain, "object": OBJECTS[name]}, tmp_path / "a.ckpt")
    content = load_with_stand_ins(tmp_path / "a.ckpt")
    assert torch.equal(content["plain"].pop("w"), plain.pop("w"))
    assert content["plain"] == plain
    assert is_read(content["plain"])
    found = content["object"]
    assert not is_read(found)
    assert not is_read({"a": [found]})
    assert class_of(found) == class_of([1, (found,)]) == name
    assert not RAN
    assert holds_objects(tmp_path / "a.ckpt")


def test_dictionaries_of_other_classes_are_read_as_ordered_ones() -> None:
    file = BytesIO()
    torch.save({"a": defaultdict(list, {"x": [1]}), "b": 2}, file)
    content = load_with_stand_ins(file)
    assert content == {"a": OrderedDict(x=[1]), "b": 2}
    assert not is_read(content)


def test_nothing_of_a_file_is_run() -> None:
    RAN.clear()
    file = BytesIO()
    torch.save({"a": Code(), "b": Made()}, file)
    with pytest.raises(pickle.UnpicklingError):  # a call of what a call returned
        load_with_stand_ins(file)
    assert not RAN


def test_plain_files_hold_no_objects(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": [1, "x"]}, tmp_path / "a.ckpt")
    assert not holds_objects(tmp_path / "a.ckpt")
    torch.save({"a": np.arange(2)}, tmp_path / "b.ckpt")
    assert holds_objects(tmp_path / "b.ckpt")
