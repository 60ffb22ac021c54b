from collections.abc import Callable
from pathlib import Path

import torch
from conftest import ForeignModule
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from lit_compress.callbacks.folder import artifact_dir, load_saved, save_weights


class WithExtraState(ForeignModule):
    def get_extra_state(self) -> dict:
        return {"seen": 3}

    def set_extra_state(self, state: dict) -> None:
        raise AssertionError("extra state is not in the file")


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    """A module with extra state used to fail after the training, when its weights were saved."""
    module, other = WithExtraState(), WithExtraState()
    module.net.to(memory_format=torch.channels_last)
    save_weights(module, tmp_path / "below" / "w.safetensors")
    load_saved(other, tmp_path / "below" / "w.safetensors")
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name))
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["w.safetensors"]


def test_the_folder_is_as_given_or_in_the_log_folder(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    logger = CSVLogger(tmp_path, "runs", "one")
    assert artifact_dir(make_trainer(), "there") == Path("there")
    assert artifact_dir(make_trainer(), None) == tmp_path / "artifact"
    inside = tmp_path / "runs" / "one" / "artifact"
    assert artifact_dir(make_trainer(logger=logger), None) == inside
