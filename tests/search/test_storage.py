"""What holds a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress.errors import SearchError
from lit_compress.search import storage
from lit_compress.search.storage import check_optuna, open_storage, without_heartbeat

from .told import optuna


def test_a_sqlite_file_in_the_folder_is_the_default(tmp_path: Path) -> None:
    found = open_storage(None, tmp_path, 7)
    assert (tmp_path / "study.db").is_file()
    assert (found.get_heartbeat_interval(), found.grace_period) == (7, 14)
    assert without_heartbeat(found) is None


def test_a_journal_file_is_named_as_one_without_heartbeat(tmp_path: Path) -> None:
    found = open_storage(f"journal:{tmp_path / 'new' / 'study.log'}", tmp_path, 7)
    assert optuna.create_study(study_name="one", storage=found).trials == []
    assert (tmp_path / "new" / "study.log").is_file()
    assert without_heartbeat(found) == "a journal file"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("study.db", r"'study\.db' is no address: give the URL of a database \(sqlite"),
        ("oracel://anna:secret@host/x", r"storage oracel://anna@host/x cannot be opened"),
        ("sqlite:////no/such/folder/x.db", "cannot be opened .*check the address"),
        ("grpc://localhost:1", r"grpc://localhost:1 cannot be opened .*its server runs"),
    ],
)
def test_storages_that_cannot_be_opened(
    address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "ANSWER", 0.1)
    with pytest.raises(SearchError, match=message) as caught:
        open_storage(address, tmp_path, 7)
    assert "secret" not in str(caught.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "find_spec", lambda _: None)
    with pytest.raises(SearchError, match=r"pip install 'lit-compress\[search\]'"):
        check_optuna()
