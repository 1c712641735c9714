"""`outrider models download`: from a folder, and from a stand-in for the hub."""

import errno
import json
import os
import shutil
import sys

import pytest

from outrider import sources
from outrider.downloading import Download, download
from speculation.engines.package import Package, bundled_pair_path, load_pair
from speculation.engines.pairs import load_model
from speculation.errors import CapacityError, ConfigurationError, InvalidRequestError, LinkError, PackageError
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint
from tests.support.hub_stand_in import COMMIT, hub_of

CONFIG = config_of("smollm")
NAME = "someone/small"
WEIGHTS = "model.safetensors"


@pytest.fixture
def checkpoint(tmp_path):
    path = write_checkpoint(tmp_path / "there", CONFIG, weights_of(CONFIG))
    (path / "pytorch_model.bin").write_bytes(b"a pickle")
    (path / "README.md").write_text("words")
    return path


@pytest.fixture
def hub(checkpoint):
    pytest.importorskip("huggingface_hub", reason="the hub's library is an extra")
    with hub_of(checkpoint, NAME) as running:
        yield running


def from_hub(hub, out, **more):
    return Download(NAME, out, endpoint=hub.endpoint, **more)


def test_a_folder_arrives_as_the_files_that_load(checkpoint, tmp_path, outrider):
    out = tmp_path / "here" / "mine"
    code, shown, said = outrider("models", "download", checkpoint, "--out", out)
    assert (code, said) == (0, "")
    assert {path.name for path in out.iterdir()} == {"config.json", "tokenizer.json", WEIGHTS}
    assert load_model(out).digest in shown
    assert load_model(out).digest == load_model(checkpoint).digest
    assert [path.name for path in out.parent.iterdir()] == ["mine"]


def test_a_home_that_no_shell_looked_up_is_a_folder_as_any_other(checkpoint, tmp_path, outrider, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OUTRIDER_MODELS_FOLDER", str(tmp_path / "kept"))
    code, shown, _ = outrider("models", "download", "~/there")
    assert (code, shown.partition(":")[0]) == (0, str(tmp_path / "kept" / "there"))
    code, _, said = outrider("models", "download", "~nobody-of-this-name/there")
    assert (code, "is no folder, nor a name" in said) == (2, True)


def test_a_user_without_a_home_is_told_where_models_could_be_kept(checkpoint, outrider, monkeypatch):
    def has_none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("OUTRIDER_MODELS_FOLDER", raising=False)
    monkeypatch.setattr("pathlib.Path.home", has_none)
    code, _, said = outrider("models", "download", checkpoint)
    assert (code, said) == (
        2,
        "outrider: error: this user has no home folder; set OUTRIDER_MODELS_FOLDER to where models are kept\n",
    )


def test_an_empty_name_is_no_source(outrider):
    code, _, said = outrider("models", "download", "")
    assert (code, "an empty name is no source" in said) == (2, True)


def test_what_lies_there_already_is_not_copied_again(checkpoint, tmp_path, outrider):
    out = tmp_path / "mine"
    outrider("models", "download", checkpoint, "--out", out)
    before = (out / WEIGHTS).stat()
    told = json.loads(outrider("models", "download", checkpoint, "--out", out, "--json")[1])
    assert told["was_there"]
    assert told["digest"] == load_model(out).digest
    assert (out / WEIGHTS).stat() == before


def test_an_interrupted_copy_goes_on_and_leaves_no_half_of_a_model(checkpoint, tmp_path, monkeypatch):
    out, copied, whole = tmp_path / "mine", sources._copied, []

    def breaks(source, target, tell):
        if source.name == WEIGHTS:
            target.write_bytes(b"half")
            raise KeyboardInterrupt
        whole.append(source.name)
        return copied(source, target, tell)

    monkeypatch.setattr(sources, "_copied", breaks)
    with pytest.raises(KeyboardInterrupt):
        download(Download(str(checkpoint), out))
    assert not out.exists()
    assert whole == ["config.json"]
    monkeypatch.setattr(sources, "_copied", lambda source, *rest: (whole.append(source.name), copied(source, *rest))[1])
    made = download(Download(str(checkpoint), out))
    assert whole == ["config.json", WEIGHTS, "tokenizer.json"]
    assert made.digest == load_model(checkpoint).digest
    assert {path.name for path in out.iterdir()} == set(made.files)


def test_a_file_of_another_content_is_copied_again(checkpoint, tmp_path):
    partial = tmp_path / ".mine.download"
    partial.mkdir()
    (partial / "tokenizer.json").write_bytes(b"0" * (checkpoint / "tokenizer.json").stat().st_size)
    (partial / "left_from_before.onnx").write_bytes(b"")
    made = download(Download(str(checkpoint), tmp_path / "mine"))
    assert made.digest == load_model(checkpoint).digest
    assert {path.name for path in made.out.iterdir()} == set(made.files)


def test_a_pair_and_a_package_are_taken_whole(tmp_path, outrider):
    code, shown, _ = outrider("models", "download", bundled_pair_path(), "--out", tmp_path / "pair", "--json")
    assert code == 0
    assert json.loads(shown)["digest"] == load_pair().identity.pair_digest == load_pair(tmp_path / "pair").identity.pair_digest
    draft = bundled_pair_path() / "draft"
    code, _, said = outrider("models", "download", draft, "--out", tmp_path / "draft", "--variant", "q4")
    assert (code, said.count("\n")) == (2, 1)
    assert "is taken whole" in said
    assert list(tmp_path.glob(".draft*")) == []
    assert outrider("models", "download", draft, "--out", tmp_path / "draft")[0] == 0
    assert Package(tmp_path / "draft").digest == load_pair().draft.digest


def test_a_damaged_package_is_not_put_in_place(tmp_path):
    shutil.copytree(bundled_pair_path() / "draft", tmp_path / "there")
    with (tmp_path / "there" / "onnx" / "model.onnx").open("r+b") as graph:
        graph.seek(1000)
        graph.write(b"other")
    with pytest.raises(PackageError, match=r"model\.onnx is damaged"):
        download(Download(str(tmp_path / "there"), tmp_path / "mine"))
    assert not (tmp_path / "mine").exists()


def test_another_digest_than_expected_is_refused(checkpoint, tmp_path, outrider):
    right, out = load_model(checkpoint).digest, tmp_path / "mine"
    code, _, said = outrider("models", "download", checkpoint, "--out", out, "--expect", "0" * 64)
    assert code == 1
    assert f"is {right}, and {'0' * 64} was expected" in said
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert outrider("models", "download", checkpoint, "--out", out, "--expect", "c0ffee")[0] == 2
    assert outrider("models", "download", checkpoint, "--out", out, "--expect", right)[0] == 0
    code, _, said = outrider("models", "download", checkpoint, "--out", out, "--expect", "0" * 64)
    assert (code, "not kept" in said, said.endswith(f"; {out} was there already, and is left as it is\n")) == (1, False, True)
    assert load_model(out).digest == right


def test_a_folder_with_other_files_is_left_alone(checkpoint, tmp_path, outrider):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    code, _, said = outrider("models", "download", checkpoint, "--out", out)
    assert (code, "holds letter.txt besides" in said) == (2, True)
    (out / "letter.txt").unlink()
    shutil.copyfile(checkpoint / "config.json", out / "config.json")
    code, _, said = outrider("models", "download", checkpoint, "--out", out)
    assert (code, "has not the same model.safetensors" in said) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "there"]


def test_a_mounted_folder_is_refused_before_files_come(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(InvalidRequestError, match="name a folder in it"):
        download(Download(str(checkpoint), tmp_path / "mine"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "there"]


def test_a_full_disk_is_said_before_and_while_files_come(checkpoint, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources, "_copied", full)
    with pytest.raises(PackageError, match="No space left on device; make room; the same command goes on"):
        download(Download(str(checkpoint), tmp_path / "mine"))
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 10))
    with pytest.raises(CapacityError, match="make room"):
        download(Download(str(checkpoint), tmp_path / "mine"))


@pytest.mark.parametrize("half", [f"{WEIGHTS}.part", ".cache/huggingface/download/aB3.0f1e.12ab34cd.incomplete"])
def test_half_of_a_file_that_a_stopped_command_left_takes_no_room_from_the_file(checkpoint, tmp_path, monkeypatch, half):
    def usage(folder):
        used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return shutil._ntuple_diskusage(room, used, room - used)

    partial = tmp_path / ".mine.download"
    (partial / half).parent.mkdir(parents=True)
    (partial / half).write_bytes(b"0" * (checkpoint / WEIGHTS).stat().st_size)
    room = 1000 + sum((checkpoint / name).stat().st_size for name in ("config.json", "tokenizer.json", WEIGHTS))
    monkeypatch.setattr(shutil, "disk_usage", usage)
    made = download(Download(str(checkpoint), tmp_path / "mine"))
    assert made.digest == load_model(checkpoint).digest
    assert {path.name for path in made.out.iterdir()} == set(made.files)


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "https://example.org/model", "-x/y"])
def test_what_is_neither_a_folder_nor_a_name_is_bad_input(name, tmp_path):
    with pytest.raises(InvalidRequestError, match="is no folder, nor a name"):
        download(Download(name, tmp_path / "mine"))


def test_a_folder_has_no_revisions(checkpoint, tmp_path):
    with pytest.raises(InvalidRequestError, match="no revisions"):
        download(Download(str(checkpoint), tmp_path / "mine", revision="main"))


def test_without_the_extra_the_hub_is_refused_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'outrider\[hub\]'"):
        download(Download(NAME, tmp_path / "mine"))


def test_a_repository_arrives_at_its_commit(hub, checkpoint, tmp_path):
    told = []
    made = download(from_hub(hub, tmp_path / "mine"), lambda name, done, total: told.append((name, done, total)))
    assert (made.version, made.digest) == (COMMIT, load_model(checkpoint).digest)
    assert {path.name for path in made.out.iterdir()} == set(made.files) == {"config.json", "tokenizer.json", WEIGHTS}
    assert {name for name, _ in hub.asked} == set(made.files)
    size = (checkpoint / WEIGHTS).stat().st_size
    assert (WEIGHTS, size, size) in told
    hub.asked.clear()
    assert download(from_hub(hub, tmp_path / "mine", revision=COMMIT)).was_there
    assert hub.asked == []


def test_a_broken_connection_is_taken_up_again(hub, checkpoint, tmp_path):
    hub.cut_bytes = 2000
    made = download(from_hub(hub, tmp_path / "mine"))
    assert made.digest == load_model(checkpoint).digest
    assert [name for name, _ in hub.asked].count(WEIGHTS) == 2


def test_a_file_that_is_not_what_the_hub_says_is_refused(hub, checkpoint, tmp_path):
    size = (checkpoint / WEIGHTS).stat().st_size
    hub.changed[WEIGHTS] = b"0" * size
    with pytest.raises(PackageError, match="did not arrive as the hub's digest"):
        download(from_hub(hub, tmp_path / "mine"))
    hub.changed.clear()
    assert download(from_hub(hub, tmp_path / "mine")).digest == load_model(checkpoint).digest


def test_what_the_hub_has_not_is_bad_input_and_no_hub_is_no_link(hub, tmp_path):
    with pytest.raises(InvalidRequestError, match="no such revision"):
        download(from_hub(hub, tmp_path / "mine", revision="v9"))
    with pytest.raises(InvalidRequestError, match="other/model is not on the hub"):
        download(Download("other/model", tmp_path / "mine", endpoint=hub.endpoint))
    with pytest.raises(LinkError, match="could not be had"):
        download(Download(NAME, tmp_path / "mine", endpoint="http://127.0.0.1:1"))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
