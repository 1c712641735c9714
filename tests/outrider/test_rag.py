"""`outrider rag`: a store from its first file to a signed update, as a person and as a program sees it."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("apsw", reason="the extra outrider[rag]")
pytest.importorskip("cryptography", reason="the extra outrider[rag]")

from outrider import rag
from tests.support import small_bert


@pytest.fixture
def model(tmp_path):
    return small_bert.write(tmp_path / "model")


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at nine.\n", "utf-8")
    (folder / "bread.txt").write_text("Bread wants flour, water and salt.\n", "utf-8")
    return folder


@pytest.fixture
def store(tmp_path, files, model, outrider):
    path = tmp_path / "notes.db"
    code, shown, _ = outrider("rag", "add", path, files, "--model", model, "--chunk-tokens", 40, "--overlap", 8)
    assert (code, shown.partition(", 0 unchanged")[0]) == (0, f"{path}: 2 added")
    return path


def told(outrider, *arguments):
    code, shown, said = outrider("rag", *arguments, "--json")
    assert (code, said) == (0, "")
    return [json.loads(line) for line in shown.splitlines()]


def test_a_store_is_listed_searched_labelled_verified_and_cut(store, model, outrider):
    code, shown, _ = outrider("rag", "list", store)
    assert code == 0
    assert "notes/bread.txt  private" in shown
    assert "2 documents, chunks of 40 tokens that share 8, revision 2" in shown
    (hit,) = told(outrider, "search", store, "The ferry leaves at nine.", "-k", 1, "--model", model)
    assert (hit["document"], hit["label"]) == ("notes/ferry.md", "private")
    assert hit["text"] in "# Ferry\n\nThe ferry leaves at nine."
    assert told(outrider, "label", store, "shared", "notes/ferry.md")[0]["changed"] == ["notes/ferry.md"]
    assert {hit["document"] for hit in told(outrider, "search", store, "x", "--label", "shared", "--model", model)} == {
        "notes/ferry.md"
    }
    assert told(outrider, "verify", store)[0]["faults"] == []
    assert told(outrider, "remove", store, "notes/bread.txt")[0]["revision"] == 4
    assert [document["name"] for document in told(outrider, "list", store)[0]["documents"]] == ["notes/ferry.md"]


def test_a_document_does_not_steer_the_terminal_of_who_searches(store, files, model, outrider):
    (files / "bread.txt").write_text("Bread \x1b]0;mine\x07 wants \x9b31m flour.\n", "utf-8")
    assert outrider("rag", "add", store, files, "--model", model)[0] == 0
    _, shown, _ = outrider("rag", "search", store, "flour", "--model", model)
    assert "Bread \ufffd]0;mine\ufffd wants \ufffd31m flour." in shown
    texts = [hit["text"] for hit in told(outrider, "search", store, "flour", "--model", model)]
    assert any("\x1b" in text for text in texts), "a program gets the text as it is"


def test_adding_again_says_what_changed(store, files, model, outrider):
    (files / "ferry.md").unlink()
    (files / "tea.rst").write_text("Tea\n===\n", "utf-8")
    (files / "scan.txt").write_bytes(b"\xff\xfe")
    code, shown, said = outrider("rag", "add", store, files, "--model", model)
    assert code == 0
    assert said == "passed over notes/scan.txt: it is no text in UTF-8\n"
    assert "1 added, 1 unchanged, 1 removed; 2 documents" in shown


def test_an_update_goes_from_publisher_to_device(store, tmp_path, files, model, outrider):
    newer, keys, delta = tmp_path / "newer.db", tmp_path / "keys", tmp_path / "delta"
    told(outrider, "delta", "keys", keys)
    shutil.copy(store, newer)
    (files / "tea.md").write_text("Tea wants hot water.", "utf-8")
    told(outrider, "add", newer, files, "--model", model)
    made = told(outrider, "delta", "make", store, newer, "--key", keys / "rag-private.pem", "-o", delta)[0]
    assert (made["added"], made["removed"], made["revision"]) == (1, 0, 3)
    apply = "delta", "apply", store, delta, "--public-key", keys / "rag-public.pem"
    assert told(outrider, *apply)[0]["digest"] == told(outrider, "verify", newer)[0]["digest"]
    code, shown, said = outrider("rag", *apply)
    assert (code, shown) == (1, "")
    assert "has 3 already: get the newest" in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("list", "{tmp}/nowhere.db"), 2, "outrider rag add"),
        (("add", "{tmp}/new.db", "{tmp}/nowhere"), 2, "is not there; name files or folders with .txt"),
        (("add", "{tmp}/new.db", "{tmp}/model", "--model", "{tmp}/model"), 2, "no document is at"),
        (("add", "{tmp}/new.db", "{tmp}/notes", "--model", "{tmp}/notes"), 1, "config.json is not there"),
        (
            ("add", "{tmp}/new.db", "{tmp}/notes", "--model", "{tmp}/model", "--chunk-tokens", "40", "--overlap", "40"),
            2,
            "overlap must be less",
        ),
        (
            ("add", "{tmp}/new.db", "{tmp}/notes", "--model", "{tmp}/model", "--chunk-tokens", "1000"),
            2,
            "a chunk may have no more",
        ),
        (("search", "{tmp}/notes.db", "x", "--label", "secret"), 2, "known: private, shared"),
        (("delta", "keys", "{tmp}/notes.db"), 2, "cannot be made"),
        (("verify", "{tmp}/notes/ferry.md"), 1, "no whole store of documents"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_what_would_be_right(store, tmp_path, outrider, arguments, code, said):
    found, shown, told = outrider("rag", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert (found, shown) == (code, "")
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "new.db").exists(), "nothing is left of a store that could not be made"


def test_on_a_terminal_a_name_with_brackets_is_shown_as_it_is(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    name = "[draft/[/a].md"
    with rag._bar(True) as tell:
        tell(name, 1, 2)
    assert name in capsys.readouterr().err
