"""Signed updates: what they lead to, and everything that is refused, each time with the store as it was."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

pytest.importorskip("apsw", reason="the extra outrider[rag]")
pytest.importorskip("cryptography", reason="the extra outrider[rag]")

from dataclasses import replace

from device_agent.retrieval import delta, delta_file, signing
from device_agent.retrieval.documents import Cut, Label
from device_agent.retrieval.indexing import relabel, remove
from device_agent.retrieval.store import Store
from speculation.errors import (
    DeltaBaseError,
    DeltaFormatError,
    DeltaReplayError,
    DeltaSignatureError,
    InvalidRequestError,
    StoreError,
)
from tests.device_agent.retrieval.scene import add, new_store, write_files


class Publisher:
    """Keys, a store that devices have, and newer ones."""

    def __init__(self, folder):
        self.folder = folder
        self.private, self.public = folder / "private.pem", folder / "public.pem"
        signing.make_keys(self.private, self.public)
        self.files = write_files(folder / "files")
        self.first = folder / "first.db"
        with new_store(self.first) as store:
            add(store, self.files)
        self.device = self.copy(self.first, "device.db")

    def copy(self, path, name):
        return shutil.copy(path, self.folder / name)

    def changed(self, path, name, **texts):
        """A copy of a store with other texts."""
        newer = self.copy(path, name)
        with Store(newer, is_read_only=False) as store:
            for file, text in texts.items():
                (self.files / f"{file}.txt").write_text(text, "utf-8")
            add(store, self.files)
        return newer

    def make(self, old, new, name, key=None):
        with Store(old) as before, Store(new) as after:
            delta.make(before, after, key or self.private, self.folder / name)
        return self.folder / name

    def apply(self, path, key=None):
        found = delta_file.read(path, key or self.public)
        with Store(self.device, is_read_only=False) as store:
            delta.apply(store, found)

    def state(self):
        with Store(self.device) as store:
            return store.digest, store.facts.revision, store.faults()


@pytest.fixture
def publisher(tmp_path):
    return Publisher(tmp_path)


@pytest.fixture
def update(publisher):
    """From what devices have to a store where one document is changed, one is new, one gone, one shared."""
    newer = publisher.changed(publisher.first, "second.db", tools="A plane smooths wood.", more="Something new.")
    with Store(newer, is_read_only=False) as store:
        remove(store, ["files/deep/stars.rst"])
        relabel(store, Label.SHARED, ["files/fruit.md"])
    return publisher.make(publisher.first, newer, "update")


def test_a_device_that_applies_it_has_the_publishers_store(publisher, update):
    publisher.apply(update)
    with Store(publisher.folder / "second.db") as second:
        wanted = second.digest, second.facts.revision, []
    assert publisher.state() == wanted


def refused(publisher, error, told, path, key=None):
    before = publisher.state()
    with pytest.raises(error, match=told):
        publisher.apply(path, key)
    assert publisher.state() == before


def test_another_key_is_refused(publisher, update):
    private, public = publisher.folder / "other.pem", publisher.folder / "other-public.pem"
    signing.make_keys(private, public)
    refused(publisher, DeltaSignatureError, "not signed with the key", update, public)
    refused(publisher, InvalidRequestError, "is not a public key", update, private)
    with pytest.raises(InvalidRequestError, match="is not a private key"):
        publisher.make(publisher.first, publisher.folder / "second.db", "unsigned", public)
    assert publisher.make(publisher.first, publisher.folder / "second.db", "unsigned").exists()


def test_one_for_another_state_is_refused(publisher, update):
    with Store(publisher.device, is_read_only=False) as store:
        remove(store, ["files/tools.txt"])
    refused(publisher, DeltaBaseError, "get the one for that", update)


def test_the_same_one_again_is_refused(publisher, update):
    publisher.apply(update)
    refused(publisher, DeltaReplayError, "already", update)


def test_none_leads_back_even_where_the_documents_are_those_it_was_made_for(publisher, update):
    """The publisher takes an update back by a newer one; then the old update fits the documents, and is old all the same."""
    publisher.apply(update)
    back = publisher.copy(publisher.first, "back.db")
    with Store(publisher.folder / "second.db") as second:
        revision = second.facts.revision
    with Store(back, is_read_only=False) as store, store.change(revision + 1):
        pass
    publisher.apply(publisher.make(publisher.folder / "second.db", back, "take-back"))
    with Store(publisher.first) as first:
        assert publisher.state()[0] == first.digest
    refused(publisher, DeltaReplayError, "already", update)


def test_every_beginning_of_one_is_refused(publisher, update):
    whole = update.read_bytes()
    for length in [*range(0, 200, 7), len(whole) // 2, len(whole) - 64, len(whole) - 1]:
        update.write_bytes(whole[:length])
        with pytest.raises(DeltaFormatError):
            delta_file.read(update, publisher.public)
    update.write_bytes(whole + b"x")
    refused(publisher, DeltaFormatError, "or longer", update)


def test_no_byte_of_one_can_be_changed(publisher, update):
    whole = update.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        update.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((DeltaFormatError, DeltaSignatureError)):
            delta_file.read(update, publisher.public)


def signed(publisher, header, documents, vectors=b"", name="forged"):
    """Signed with the right key, whatever is in it."""
    told, listed = json.dumps(header).encode(), json.dumps(documents).encode()
    content = delta_file.MAGIC + len(told).to_bytes(4, "little") + told + listed + vectors
    path = publisher.folder / name
    path.write_bytes(content + signing.sign(publisher.private, content))
    return path


def header_of(publisher, documents, **changes):
    with Store(publisher.device) as store:
        facts, digest = store.facts, store.digest
    whole = {"format": 1, "base": digest, "new": "f" * 64, "counter": facts.revision + 1, "num_vectors": 0}
    whole |= {"model_digest": facts.model_digest, "dimension": facts.dimension}
    return whole | {"document_bytes": len(json.dumps(documents).encode())} | changes


NOTHING = {"removed": [], "added": []}
DOCUMENT = {"name": "a", "label": "shared", "text": "abc", "spans": []}


@pytest.mark.parametrize(
    ("documents", "changes", "told"),
    [
        (NOTHING, {}, "leads to"),
        (NOTHING, {"format": 2}, "has format 2"),
        (NOTHING, {"counter": -1}, "counter of the header"),
        (NOTHING, {"counter": True}, "counter of the header"),
        (NOTHING, {"num_vectors": 10**15}, "num_vectors of the header"),
        (NOTHING, {"num_vectors": 1000, "dimension": 100_000}, "should have"),
        (NOTHING, {"dimension": 7}, "7 numbers"),
        (NOTHING, {"more": 1}, "no less and no more"),
        ({"removed": []}, {}, "removed and added"),
        ({"removed": [3], "added": []}, {}, "document's name"),
        ({"removed": [], "added": [DOCUMENT | {"name": ""}]}, {}, "document's name"),
        ({"removed": [], "added": [DOCUMENT | {"name": "a\nb"}]}, {}, "document's name"),
        ({"removed": [], "added": [DOCUMENT | {"label": "public"}]}, {}, "known are private, shared"),
        ({"removed": [], "added": [DOCUMENT | {"text": None}]}, {}, "a text and a list"),
        ({"removed": [], "added": [DOCUMENT | {"spans": [[0, 4]]}]}, {}, "not of its text"),
        ({"removed": [], "added": [DOCUMENT | {"spans": [[0, 3]]}]}, {}, "fewer vectors"),
        ({"removed": [], "added": [DOCUMENT | {"path": "/etc/passwd"}]}, {}, "name, label, text and spans"),
    ],
)
def test_what_means_nothing_is_refused_even_where_it_is_signed(publisher, documents, changes, told):
    path = signed(publisher, header_of(publisher, documents, **changes), documents)
    refused(publisher, DeltaFormatError, told, path)


def test_a_header_that_is_nested_deeply_or_too_long_is_refused(publisher):
    path = publisher.folder / "deep"
    for told in (b"[" * 10_000, b" " * 20_000):
        path.write_bytes(delta_file.MAGIC + len(told).to_bytes(4, "little") + told)
        refused(publisher, DeltaFormatError, "nested|may have", path)


def test_a_file_over_the_limit_is_refused_before_it_is_read(publisher, monkeypatch):
    path = publisher.folder / "large"
    with path.open("wb") as file:
        file.truncate(delta_file.MAX_DELTA_BYTES + 1)
    refused(publisher, DeltaFormatError, "at most", path)


def test_a_name_in_one_is_a_name_and_never_a_path(publisher):
    newer = publisher.copy(publisher.first, "newer.db")
    with Store(newer, is_read_only=False) as store, store.change():
        store.put(replace(store.document("files/tools.txt"), name="../../outside.txt"))
    before = {path for path in publisher.folder.parent.rglob("*") if path.is_file()}
    update = publisher.make(publisher.first, newer, "up")
    publisher.apply(update)
    assert {path for path in publisher.folder.parent.rglob("*") if path.is_file()} - before == {update}


@pytest.mark.parametrize("name", ["at 3.00\u202fPM.txt", "x" * 1025])
def test_none_is_made_that_no_device_would_take_for_its_names(publisher, name):
    """As macOS calls its screenshots, and too long. One that devices have could not be taken away, either."""
    newer = publisher.copy(publisher.first, "newer.db")
    with Store(newer, is_read_only=False) as store, store.change():
        store.put(replace(store.document("files/tools.txt"), name=name))
    with pytest.raises(InvalidRequestError, match="no device takes a document called"):
        publisher.make(publisher.first, newer, "up")
    gone = publisher.copy(newer, "gone.db")
    with Store(gone, is_read_only=False) as store:
        remove(store, [name])
    with pytest.raises(InvalidRequestError, match="no device takes a document called"):
        publisher.make(newer, gone, "up")


def test_one_is_made_only_of_stores_that_go_together_and_the_newer_last(publisher):
    newer = publisher.changed(publisher.first, "newer.db", tools="An axe.")
    with pytest.raises(InvalidRequestError, match="only what is newer"):
        publisher.make(newer, publisher.first, "back")
    other = publisher.folder / "other.db"
    with new_store(other, Cut(20, 4)) as store:
        add(store, publisher.files)
    with pytest.raises(StoreError, match="cut otherwise"):
        publisher.make(publisher.first, other, "other")


def test_a_key_or_a_delta_is_never_written_over(publisher, update):
    with pytest.raises(InvalidRequestError, match="never written over"):
        signing.make_keys(publisher.private, publisher.public)
    with pytest.raises(InvalidRequestError, match="is there already"):
        publisher.make(publisher.first, publisher.folder / "second.db", "update")
    assert publisher.private.stat().st_mode & 0o077 == 0


def test_keys_are_made_both_or_none(tmp_path, monkeypatch):
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    public.write_text("the public half of another key")
    with pytest.raises(InvalidRequestError, match=r"public\.pem is there already"):
        signing.make_keys(private, public)
    assert [path.name for path in tmp_path.iterdir()] == ["public.pem"]
    public.unlink()

    def full(descriptor, mode):
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(signing.os, "fdopen", full)
    with pytest.raises(InvalidRequestError, match=r"private\.pem cannot be made: No space left on device"):
        signing.make_keys(private, public)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    signing.make_keys(private, public)
