"""The file of a store: SQLite with the extension sqlite-vec, opened with suspicion, its faults told in words.

Through ``apsw``, which brings its own SQLite: Python's ``sqlite3`` loads no extension in many builds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from device_agent.retrieval.documents import FORMAT
from device_agent.retrieval.extra import library
from speculation.errors import InvalidRequestError, StoreError

APPLICATION_ID = 0x6F727467
"""``ortg`` in the header of the file: SQLite's place for whose it is."""

WAIT_MS = 5000
"""How long another process that writes is waited for."""

_SCHEMA = """
create table facts (key text primary key, value) without rowid;
create table documents (
    id integer primary key, name text not null unique, label text not null, root text not null,
    text text not null, text_digest text not null, digest text not null
);
create table chunks (
    id integer primary key, document integer not null references documents on delete cascade,
    start integer not null, end integer not null
);
create index chunks_of_document on chunks (document);
create virtual table vectors using vec0(embedding float[{dimension}] distance_metric=cosine, label text);
pragma application_id = {application_id};
pragma user_version = {format};
"""


def create(path: Path, dimension: int) -> Any:
    """A connection to a new store, which only its owner may read. Raises ``InvalidRequestError`` where something is there."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError as error:
        raise InvalidRequestError(f"{path} is there already; name a new file", "store") from error
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be made: {error.strerror}", "store") from error
    with mapped(path):
        connection = _connected(path, is_read_only=False)
        with connection:
            connection.execute(_SCHEMA.format(dimension=dimension, application_id=APPLICATION_ID, format=FORMAT))
        return connection


def connect(path: Path, *, is_read_only: bool) -> Any:
    """A connection to a store. Raises ``StoreError`` for a file that is none, ``InvalidRequestError`` where none is."""
    if not path.is_file():
        raise InvalidRequestError(f"{path} is not there; make a store with: outrider rag add {path} FOLDER", "store")
    with mapped(path):
        connection = _connected(path, is_read_only)
        _check(path, connection)
        return connection


def _connected(path: Path, is_read_only: bool) -> Any:
    apsw, extension = library("apsw"), library("sqlite_vec")
    flags = apsw.SQLITE_OPEN_READONLY if is_read_only else apsw.SQLITE_OPEN_READWRITE
    connection = apsw.Connection(str(path), flags=flags)
    connection.enable_load_extension(True)
    connection.load_extension(extension.loadable_path())
    connection.enable_load_extension(False)
    connection.set_busy_timeout(WAIT_MS)
    # What is deleted is overwritten; and what a foreign file's schema says runs nothing.
    for pragma in ("secure_delete = on", "foreign_keys = on", "trusted_schema = off", "cell_size_check = on"):
        connection.execute(f"pragma {pragma}").fetchall()
    return connection


def _check(path: Path, connection: Any) -> None:
    mark, version = (connection.pragma(name) for name in ("application_id", "user_version"))
    if mark != APPLICATION_ID:
        raise StoreError(f"{path} is a database, but no store of documents; make one with: outrider rag add STORE FOLDER")
    if version != FORMAT:
        raise StoreError(f"{path} has format {version}, this program reads format {FORMAT}: make it again")
    foreign = connection.execute("select name from sqlite_schema where type in ('trigger', 'view')").fetchall()
    if foreign:
        raise StoreError(f"{path} has triggers or views ({foreign[0][0]}), which no store has: it was changed by others")


def damages(connection: Any) -> list[str]:
    """What SQLite's own check finds wrong with the file."""
    return [str(row[0]) for row in connection.execute("pragma integrity_check(5)") if row[0] != "ok"]


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Turns what SQLite refuses into ``StoreError``."""
    apsw = library("apsw")
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StoreError(f"{path} is no whole store of documents: {error}; make it again from the documents") from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreError(f"{path} is being changed by another process; try again once that is done") from error
    except apsw.ReadOnlyError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error
    except apsw.Error as error:
        raise StoreError(f"{path}: {error}") from error
