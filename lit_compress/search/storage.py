"""What holds a study: a database, a journal file, or a proxy of a database."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lit_compress.errors import SearchError

#: Beginnings of the addresses that are not those of databases.
JOURNAL, PROXY = "journal:", "grpc://"
#: Seconds that a worker waits for the lock of a SQLite file.
PATIENCE = 120
#: Seconds in which a proxy must answer.
ANSWER = 10
#: How often a trial whose worker was killed is run again: it may be what kills it, by its memory.
RETRIES = 2


def check_optuna() -> None:
    """Check that Optuna is installed.

    Raises:
        SearchError: If it is not.
    """
    if find_spec("optuna") is None:
        raise SearchError("lit-compress search needs Optuna: pip install 'lit-compress[search]'")


def open_storage(address: str | None, dirpath: Path, heartbeat: int) -> Any:
    """Return the Optuna storage at an address.

    Args:
        address: The URL of a database, ``journal:FILE``, or ``grpc://HOST:PORT``. Default: the
            SQLite file ``study.db`` in ``dirpath``.
        dirpath: Folder of the search; it exists.
        heartbeat: Seconds between two signs of life of a trial, in a database.

    Raises:
        SearchError: If it cannot be opened.
    """
    address = address or f"sqlite:///{(dirpath / 'study.db').absolute()}"
    if "://" not in address and not address.startswith(JOURNAL):
        raise SearchError(
            f"storage {address!r} is no address: give the URL of a database (sqlite:///study.db), "
            f"{JOURNAL}FILE, or {PROXY}HOST:PORT"
        )
    try:
        with quietly():
            if address.startswith(JOURNAL):
                return _journal(address.removeprefix(JOURNAL))
            if address.startswith(PROXY):
                return _proxy(address)
            return _database(address, heartbeat)
    except ImportError as error:
        raise SearchError(
            f"storage {without_password(address)} needs another package ({error}): install it"
        ) from error
    except Exception as error:  # of the file system, SQLAlchemy, a database driver, or gRPC
        text = " ".join(str(error).split())[:200]
        raise SearchError(
            f"storage {without_password(address)} cannot be opened ({type(error).__name__}: "
            f"{text}): check the address, and that its server runs"
        ) from error


def without_heartbeat(storage: Any) -> str | None:
    """Return what a storage is, if it cannot tell the trials of killed workers from running ones.

    In Optuna 5.0 only databases can, and no proxy of one.

    Args:
        storage: An Optuna storage.
    """
    interval = getattr(storage, "get_heartbeat_interval", None)
    if interval is not None and interval() is not None:
        return None
    names = {"JournalStorage": "a journal file", "GrpcStorageProxy": "a gRPC proxy"}
    return names.get(type(storage).__name__, type(storage).__name__)


def without_password(address: str) -> str:
    """Return an address as a message may show it.

    Args:
        address: The address of a storage.

    Example:
        >>> without_password("postgresql://anna:secret@host/studies")
        'postgresql://anna@host/studies'
    """
    parts = urlsplit(address)
    if parts.password is None:
        return address
    return address.replace(f":{parts.password}@", "@", 1)


@contextmanager
def quietly() -> Iterator[None]:
    """Hide what Optuna logs, and its warnings of functions that may change, in the block."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _journal(path: str) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(path))


def _proxy(address: str) -> Any:
    from optuna.storages import GrpcStorageProxy

    parts = urlsplit(address)
    storage = GrpcStorageProxy(host=parts.hostname or "localhost", port=parts.port or 13000)
    storage.wait_server_ready(timeout=ANSWER)
    return storage


def _database(address: str, heartbeat: int) -> Any:
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from sqlalchemy.pool import NullPool

    is_file = address.startswith("sqlite")
    # A worker asks once a trial, and an idle connection of each would use up those of a server.
    options = {"connect_args": {"timeout": PATIENCE}} if is_file else {"poolclass": NullPool}
    return RDBStorage(
        address,
        engine_kwargs=options,
        heartbeat_interval=heartbeat,
        grace_period=2 * heartbeat,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
    )
