from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("apsw", reason="the extra outrider[rag]")
pytest.importorskip("sqlite_vec", reason="the extra outrider[rag]")

from device_agent.retrieval import extra, indexing
from device_agent.retrieval.documents import Cut, Label
from device_agent.retrieval.indexing import relabel, remove
from device_agent.retrieval.store import Store
from speculation.errors import ConfigurationError, InvalidRequestError, StoreError
from tests.device_agent.retrieval.scene import TEXTS, add, new_store, small_embedder, write_files


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path / "store.db") as made:
        yield made


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path / "files")


def names(store):
    return [entry.name for entry in store.entries()]


def find(store, text, **options):
    return store.search(small_embedder().embed(text), 3, **options)


def test_a_chunk_is_found_by_its_own_text_with_where_it_stands(store, files):
    add(store, files)
    text = (files / "deep" / "stars.rst").read_text("utf-8")
    for span in store.document("files/deep/stars.rst").spans:
        best = find(store, text[span.start : span.end])[0]
        assert (best.document, best.span, best.label) == ("files/deep/stars.rst", span, Label.PRIVATE)
        assert best.score == pytest.approx(1, abs=1e-5)
        assert best.text == text[span.start : span.end]


def test_the_search_ranks_as_all_cosines_do(store, files):
    add(store, files)
    asked = small_embedder().embed("what cuts wood")
    scores = sorted((float(v @ asked) for name in names(store) for v in store.document(name).vectors), reverse=True)
    found = store.search(asked, len(scores))
    assert [hit.score for hit in found] == pytest.approx(scores, abs=1e-5)


def test_adding_again_changes_nothing_and_embeds_nothing(store, files, monkeypatch):
    add(store, files)
    before, revision = store.digest, store.facts.revision
    monkeypatch.setattr(type(small_embedder()), "embed", None)
    outcome = add(store, files)
    assert (outcome.added, outcome.removed, len(outcome.unchanged)) == ([], [], 3)
    assert (store.digest, store.facts.revision) == (before, revision)


def test_what_changed_is_replaced_and_what_is_gone_vanishes(store, files):
    add(store, files)
    (files / "tools.txt").write_text("An awl makes holes.", "utf-8")
    (files / "fruit.md").unlink()
    outcome = add(store, files)
    assert (outcome.added, outcome.removed) == (["files/tools.txt"], ["files/fruit.md"])
    assert names(store) == ["files/deep/stars.rst", "files/tools.txt"]
    assert {hit.document for hit in find(store, "apples")} <= set(names(store))


def test_a_removed_document_leaves_neither_text_nor_vector_in_the_file(store, files):
    add(store, files)
    vector = store.document("files/tools.txt").vectors[0].tobytes()
    assert vector in store.path.read_bytes()
    assert b"hammer" in store.path.read_bytes()
    remove(store, ["files/tools.txt"])
    assert vector not in store.path.read_bytes()
    assert b"hammer" not in store.path.read_bytes()
    assert store.faults() == []


def test_a_name_that_is_not_there_removes_nothing(store, files):
    add(store, files)
    before = store.digest
    with pytest.raises(InvalidRequestError, match="no document 'nothing'"):
        remove(store, ["files/tools.txt", "nothing"])
    assert store.digest == before


def test_a_new_document_is_private_and_a_search_keeps_to_labels(store, files):
    add(store, files)
    assert find(store, "apples", labels={Label.SHARED}) == []
    assert relabel(store, Label.SHARED, ["files/fruit.md"]) == ["files/fruit.md"]
    assert {hit.document for hit in find(store, "apples", labels={Label.SHARED})} == {"files/fruit.md"}
    add(store, files)
    assert store.document("files/fruit.md").label is Label.SHARED, "adding again without a label leaves it"


def test_only_its_owner_may_read_a_store(store):
    assert store.path.stat().st_mode & 0o077 == 0


def test_two_files_of_one_name_are_refused_before_anything_is_done(store, tmp_path, files):
    other = write_files(tmp_path / "other" / "files")
    with pytest.raises(InvalidRequestError, match="would both be files/"):
        add(store, files, other)
    add(store, files)
    with pytest.raises(InvalidRequestError, match="remove that one first"):
        add(store, other)


def test_what_is_no_text_is_passed_over_with_a_reason_and_links_are_not_followed(store, tmp_path, files):
    (files / "picture.md").write_bytes(b"\x89PNG\xff\xfe")
    (files / "empty.txt").write_text(" \n", "utf-8")
    (files / "program.py").write_text("pass", "utf-8")
    secret = tmp_path / "secret.txt"
    secret.write_text("outside", "utf-8")
    (files / "link.txt").symlink_to(secret)
    outcome = add(store, files)
    assert outcome.skipped == {"files/picture.md": "it is no text in UTF-8", "files/empty.txt": "it holds no text"}
    assert len(outcome.added) == 3


def test_a_name_that_is_no_text_and_what_is_no_file_are_passed_over(store, files):
    with open(os.fsencode(files) + b"/caf\xe9.md", "w", encoding="utf-8") as file:
        file.write("A coffee.")
    os.mkfifo(files / "pipe.txt")
    outcome = add(store, files)
    assert list(outcome.skipped.values()) == ["its name is no text in UTF-8"]
    assert len(outcome.added) == 3


def test_a_folder_that_cannot_be_read_is_named_and_loses_no_document(store, files, monkeypatch):
    add(store, files)
    before, scan = store.digest, os.scandir

    def scandir(path):
        if os.path.basename(path) == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (files / "fruit.md").unlink()
    outcome = add(store, files)
    assert outcome.skipped == {"files/deep": "it cannot be read: Permission denied"}
    assert outcome.removed == ["files/fruit.md"], "what is gone from a folder that was read is gone"
    assert names(store) == ["files/deep/stars.rst", "files/tools.txt"]
    monkeypatch.undo()
    (files / "fruit.md").write_text(TEXTS["fruit.md"], "utf-8")
    add(store, files)
    assert store.digest == before


def test_what_lies_in_a_folder_that_can_be_listed_and_not_entered_is_named_and_the_rest_is_taken(store, files, monkeypatch):
    add(store, files)
    before, stat = store.digest, Path.stat

    def refuse(path, *, follow_symlinks=True):
        if path.parent.name == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refuse)
    outcome = add(store, files)
    assert outcome.skipped == {"files/deep/stars.rst": "it cannot be read: Permission denied"}
    assert (outcome.unchanged, outcome.removed) == (["files/fruit.md", "files/tools.txt"], [])
    assert store.digest == before


def test_a_file_that_cannot_be_read_leaves_its_document(store, files, monkeypatch):
    add(store, files)
    before, read = store.digest, Path.read_text

    def read_text(path, *encoding):
        if path.name == "tools.txt":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, *encoding)

    monkeypatch.setattr(Path, "read_text", read_text)
    outcome = add(store, files)
    assert outcome.skipped == {"files/tools.txt": "it cannot be read: Permission denied"}
    assert (outcome.removed, store.digest) == ([], before)


def test_a_file_that_goes_while_those_before_it_are_added_is_told_as_gone_and_the_rest_is_taken(store, files):
    add(store, files)
    (files / "deep" / "stars.rst").write_text("A nova is a star that flares.", "utf-8")

    def tell(name, *_):
        if name == "files/fruit.md":
            (files / "fruit.md").unlink()

    outcome = indexing.add(store, small_embedder(), [files], None, tell)
    assert outcome.skipped == {"files/fruit.md": "it is gone"}
    assert (outcome.added, outcome.removed) == (["files/deep/stars.rst"], ["files/fruit.md"])
    assert names(store) == ["files/deep/stars.rst", "files/tools.txt"]


def test_a_store_of_another_model_is_refused(store):
    with pytest.raises(StoreError, match="another embedding model"):
        store.check_model("f" * 64)


def damage(path, statement, *values):
    """Change a store behind its back."""
    with Store(path, is_read_only=False) as opened:
        opened._run(statement, *values)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("update documents set text = 'x' || text where name = 'files/tools.txt'", "files/tools.txt is not what was put in"),
        ("update documents set label = 'shared' where name = 'files/tools.txt'", "files/tools.txt is not what was put in"),
        ("delete from vectors where rowid = 1", "chunks and"),
        (f"update vectors set embedding = zeroblob({4 * 32}) where rowid = 1", "is not what was put in"),
    ],
)
def test_what_was_changed_behind_its_back_is_found(store, files, statement, told):
    add(store, files)
    assert store.faults() == []
    damage(store.path, statement)
    assert any(told in fault for fault in store.faults())


def opened_and_read(path):
    with Store(path) as opened:
        return opened.faults()


def test_a_file_that_is_cut_off_or_no_store_is_a_clear_error(store, files, tmp_path):
    add(store, files)
    whole = store.path.read_bytes()
    cut, text = tmp_path / "cut.db", tmp_path / "text.db"
    cut.write_bytes(whole[: len(whole) // 2])
    text.write_text("no database at all, " * 100, "utf-8")
    for path in (cut, text):
        with pytest.raises(StoreError, match=r"is no whole store of documents: .*; make it again"):
            opened_and_read(path)
    with pytest.raises(InvalidRequestError, match="outrider rag add"):
        Store(tmp_path / "nowhere")


def test_a_database_of_others_and_one_with_a_trigger_are_refused(store, tmp_path):
    damage(store.path, "create trigger t after insert on documents begin delete from documents; end")
    with pytest.raises(StoreError, match="triggers or views"):
        Store(store.path)
    apsw = extra.library("apsw")
    foreign = apsw.Connection(str(tmp_path / "foreign.db"))
    foreign.execute("create table x (y)")
    foreign.close()
    with pytest.raises(StoreError, match="no store of documents"):
        Store(tmp_path / "foreign.db")


def broken_off(store):
    with store.change():
        store.take("files/tools.txt")
        raise RuntimeError("in the middle")


def test_a_failure_in_a_change_leaves_all_as_it_was(store, files):
    add(store, files)
    before, revision = store.digest, store.facts.revision
    with pytest.raises(RuntimeError, match="in the middle"):
        broken_off(store)
    assert (store.digest, store.facts.revision) == (before, revision)
    assert len(find(store, "hammer")) == 3


def test_an_overlap_as_long_as_a_chunk_is_refused(tmp_path):
    with pytest.raises(InvalidRequestError, match="less than a chunk"):
        new_store(tmp_path / "new.db", Cut(8, 8))


def test_without_the_extra_it_is_said_which_one_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "apsw", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'outrider\[rag\]'"):
        extra.library("apsw")


def test_the_agent_loads_nothing_of_the_extra_before_it_is_used():
    code = "import sys, device_agent.build, outrider.cli; print({'apsw', 'sqlite_vec', 'cryptography'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


def test_vectors_come_back_bit_for_bit(store, files):
    add(store, files)
    document = store.document("files/tools.txt")
    again = np.array([small_embedder().embed(document.text[s.start : s.end]) for s in document.spans])
    assert np.array_equal(document.vectors, again)
