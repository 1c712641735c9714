"""`outrider models list`: what is in a folder, and why the rest is no model."""

import json

import pytest

from outrider.listing import entries_of
from speculation.engines.package import Package, bundled_pair_path, load_pair
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint

CONFIG = config_of("smollm")


@pytest.fixture
def folder(tmp_path, outrider):
    """A checkpoint two folders deep, a package of it, and a folder that is no model."""
    checkpoint = write_checkpoint(tmp_path / "models" / "someone" / "small", CONFIG, weights_of(CONFIG))
    assert outrider("models", "convert", checkpoint, "--out", tmp_path / "models" / "made")[0] == 0
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "config.json").write_text("{}")
    (tmp_path / "models" / ".left.partial").mkdir()
    return tmp_path / "models"


def test_every_model_of_a_folder_is_told_and_what_does_not_load_with_its_reason(folder):
    broken, made, small = entries_of(folder)
    assert (broken.name, broken.layout) == ("broken", None)
    assert "no graph" in broken.error
    assert (made.name, made.layout, made.variants, made.digest) == (
        "made",
        "package",
        ("fp32",),
        Package(folder / "made").digest,
    )
    assert (small.name, small.layout, small.variants) == ("someone/small", "checkpoint", ("transformers", "torch"))
    assert small.num_parameters == made.num_parameters == sum(w.size for w in weights_of(CONFIG).values())
    assert small.context_length == made.context_length == CONFIG["max_position_embeddings"]
    assert small.bytes == sum(p.stat().st_size for p in (folder / "someone" / "small").iterdir())


def test_a_model_and_a_pair_are_listed_themselves(folder):
    (only,) = entries_of(folder / "made")
    assert (only.name, only.layout) == ("made", "package")
    pair, draft, full = entries_of(bundled_pair_path())
    assert (pair.name, pair.layout, pair.digest) == ("pydoc", "pair", load_pair().identity.pair_digest)
    assert [draft.name, full.name] == ["pydoc/draft", "pydoc/full"]


def test_a_folder_that_was_to_be_a_model_is_listed_with_the_reason(folder):
    (only,) = entries_of(folder / "broken")
    assert (only.name, only.layout) == ("broken", None)
    assert "no graph" in only.error
    small = folder / "someone" / "small"
    (small / "tokenizer.json").unlink()
    (small / "onnx").mkdir()
    (only,) = entries_of(small)
    assert "has no tokenizer.json" in only.error


def test_a_damaged_pair_does_not_end_the_list(folder):
    (folder / "apair").mkdir()
    (folder / "apair" / "pair.json").write_text("{")
    first, *others = entries_of(folder)
    assert "is not JSON" in first.error
    assert len(others) == 3


def test_people_see_a_table_and_programs_one_line(folder, outrider):
    code, shown, said = outrider("models", "list", folder)
    assert (code, said) == (0, "")
    assert shown.splitlines()[0].split() == ["name", "layout", "variants", "parameters", "context", "MB", "digest"]
    assert "broken: does not load: " in shown
    assert Package(folder / "made").digest[:12] in shown
    code, shown, _ = outrider("models", "list", folder, "--json", "--no-digest")
    assert (code, shown.count("\n")) == (0, 1)
    models = {model["name"]: model for model in json.loads(shown)["models"]}
    assert models["someone/small"]["digest"] is None
    assert models["made"]["digest"] == Package(folder / "made").digest


def test_without_a_folder_the_bundled_pair_and_what_is_kept_are_listed(folder, outrider, monkeypatch):
    monkeypatch.setenv("OUTRIDER_MODELS_FOLDER", str(folder))
    _, shown, _ = outrider("models", "list", "--json")
    assert [m["name"] for m in json.loads(shown)["models"]][:4] == ["pydoc", "pydoc/draft", "pydoc/full", "broken"]


def test_a_folder_that_is_not_there_is_bad_input(tmp_path, outrider):
    code, shown, said = outrider("models", "list", tmp_path / "nowhere")
    assert (code, shown, said.count("\n")) == (2, "", 1)
    code, shown, _ = outrider("models", "list", tmp_path)
    assert (code, shown) == (0, f"no models in {tmp_path}\n")


def test_a_folder_that_may_not_be_read_does_not_end_the_list(folder, monkeypatch):
    import pathlib

    listed = pathlib.Path.iterdir

    def refuses(path):
        if path.name == "broken":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(pathlib.Path, "iterdir", refuses)
    first, *others = entries_of(folder)
    assert "Permission denied" in first.error
    assert [entry.name for entry in others] == ["made", "someone/small"]
