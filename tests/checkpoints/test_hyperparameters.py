import json
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lit_compress.checkpoints.hyperparameters import check_class_paths, split
from lit_compress.errors import CheckpointError


class Kind(str, Enum):
    A = "a"


def test_plain_values_come_back_from_json_and_objects_are_named() -> None:
    plain = {"a": 1, "b": "x", "c": None, "d": [1, [2.5]], "e": {"f": True}}
    objects = {"g": nn.ReLU(), "h": {"i": [nn.ReLU()]}, "j": Kind.A, "k": {1: 2}, "l": print}
    values, kinds = split({**plain, "tuples": ((1, 2), (3, 4)), **objects})
    assert json.loads(json.dumps(values)) == {**plain, "tuples": [[1, 2], [3, 4]]}
    assert list(kinds) == list(objects)
    relu = "torch.nn.modules.activation.ReLU"
    assert (kinds["g"], kinds["h"], kinds["j"]) == (relu, relu, f"{__name__}.Kind")


@pytest.fixture
def unimported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package that is not imported, and leaves a mark if it is."""
    (tmp_path / "unimported").mkdir()
    for name in ("__init__", "part"):
        (tmp_path / "unimported" / f"{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


PARSED = [
    {"loss": "unimported.Loss"},
    {"loss": ["unimported.part.Loss"]},
    {"loss": "[{class_path: unimported.part.Loss}]"},
]
ALWAYS = [
    {"net": {"class_path": "unimported.Net"}},
    {"net": {"_target_": "unimported.Net", "width": 3}},
    {"nets": [{"a": {"init_args": {"act": {"class_path": "nowhere.Act"}}}}]},
    {"_class_path": "nowhere.Net"},
]


@pytest.mark.parametrize("values", [*PARSED, *ALWAYS])
def test_names_that_are_not_imported_are_refused(values: dict[str, Any], unimported: Path) -> None:
    words = r"names (unimported|nowhere)\S+, which is not imported.*import \S+ first, or give"
    with pytest.raises(CheckpointError, match=words):
        check_class_paths(values, parsed=True)
    if values in PARSED:
        check_class_paths(values, parsed=False)  # text for the user's constructor
    else:
        with pytest.raises(CheckpointError, match=words):
            check_class_paths(values, parsed=False)
    assert "unimported" not in sys.modules


@pytest.mark.parametrize(
    "value",
    [
        {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        {"_target_": "torch.nn.ReLU"},
        {"class_path": f"{__name__}.Kind"},
        {"class_path": "lit_compress.modules.shufflenet_v2.ShuffleNetV2"},
        "resnet50.a1_in1k",
        "data/v1.2/images.tar.gz",
        "val.acc",
        3,
    ],
)
@pytest.mark.parametrize("parsed", [True, False])
def test_what_is_imported_and_other_text_is_fine(value: Any, parsed: bool) -> None:
    check_class_paths({"a": value, "b": [value]}, parsed)


def test_a_configuration_that_a_file_names_is_read_too(unimported: Path) -> None:
    """The command line's parser takes the name of a file for what is in it."""
    config = unimported / "net.yaml"
    config.write_text("class_path: unimported.Net")
    with pytest.raises(CheckpointError, match=r"names unimported\.Net"):
        check_class_paths({"net": str(config)}, parsed=True)
