from pathlib import Path

import pytest
import torch

from lit_compress.checkpoints.reading import check_whole, read_checkpoint
from lit_compress.errors import CheckpointError


@pytest.mark.parametrize("word", [None, "best", "last", "s3://bucket/a.ckpt"])
def test_words_and_addresses_are_no_paths(word: str | None) -> None:
    check_whole(word)


def test_checkpoint_that_is_missing_or_cut_off_is_named(tmp_path: Path) -> None:
    whole = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"weight": torch.zeros(1000)}}, whole)
    check_whole(whole)
    (tmp_path / "cut.ckpt").write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(CheckpointError, match="is not complete"):
        check_whole(tmp_path / "cut.ckpt")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        check_whole(tmp_path / "b.ckpt")


def test_objects_are_refused_passed_over_or_made(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"w": torch.ones(2)}, "object": torch.nn.ReLU()}, path)
    with pytest.raises(CheckpointError, match="contains more than weights"):
        read_checkpoint(path)
    passed = read_checkpoint(path, objects="stand-ins")
    assert torch.equal(passed["state_dict"]["w"], torch.ones(2))
    assert repr(passed["object"]) == "<torch.nn.modules.activation.ReLU, not read>"
    assert isinstance(read_checkpoint(path, objects="made")["object"], torch.nn.ReLU)
