"""A folder with a key: made once, for its owner's eyes, and never over what is there."""

import json
import re
from pathlib import Path

import pytest

from outrider.key_folder import make_keys
from speculation.errors import ConfigurationError
from speculation.keys import read_key, read_keys
from speculation.tenants import bearer


def test_the_file_lets_in_the_key_that_was_made(tmp_path, outrider):
    folder = tmp_path / "new" / "keys"
    code, out, err = outrider("keys", folder, "--tenant", "field team")
    assert (code, out, err) == (0, "", f"made {folder / 'key'} and {folder / 'keys.toml'}\n")
    key = read_key(folder / "key")
    assert len(key) >= 43
    assert read_keys(folder / "keys.toml").tenant_of(bearer(key)).name == "field team"
    assert key not in (folder / "keys.toml").read_text()
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {"key": 0o600, "keys.toml": 0o600}


def test_what_is_there_stays_as_it_is(tmp_path, outrider):
    assert make_keys(tmp_path, "a")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, _, err = outrider("keys", tmp_path)
    assert (code, err.split()[0]) == (0, "found")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_program_is_told_where_the_files_are(tmp_path, outrider):
    told = {"key_file": str(tmp_path / "key"), "keys_file": str(tmp_path / "keys.toml")}
    for is_new in (True, False):
        code, out, err = outrider("keys", tmp_path, "--json")
        assert (code, json.loads(out), err) == (0, told | {"made": is_new}, "")


def test_two_folders_have_two_keys(tmp_path):
    assert make_keys(tmp_path / "a", "a")
    assert make_keys(tmp_path / "b", "a")
    assert read_key(tmp_path / "a" / "key") != read_key(tmp_path / "b" / "key")


def test_a_start_that_broke_off_is_taken_up(tmp_path):
    (tmp_path / "key").write_text("sesame-sesame-sesame\n")
    (tmp_path / "key.part").write_text("sesa")
    assert make_keys(tmp_path, "a")
    assert read_keys(tmp_path / "keys.toml").tenant_of(bearer("sesame-sesame-sesame")) is not None


def test_a_file_for_another_key_is_not_written_over(tmp_path):
    assert make_keys(tmp_path, "a")
    (tmp_path / "key").write_text("sesame-sesame-sesame\n")
    with pytest.raises(ConfigurationError, match="does not let in the key") as refused:
        make_keys(tmp_path, "a")
    assert "sesame" not in str(refused.value)
    (tmp_path / "key").unlink()
    with pytest.raises(ConfigurationError, match="key cannot be read: No such file"):
        make_keys(tmp_path, "a")


@pytest.mark.parametrize("tenant", ["", 'a"b', "a\nb", "a\\b"])
def test_a_name_that_would_break_the_file_is_refused(tenant, tmp_path):
    with pytest.raises(ConfigurationError, match="--tenant"):
        make_keys(tmp_path, tenant)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="no keys can be made in"):
        make_keys(tmp_path / "file", "a")


def test_the_compose_file_and_the_image_agree_on_the_folder():
    """The names that ``outrider keys /keys`` writes are those that the other services read, from a folder that is theirs."""
    root = Path(__file__).resolve().parents[2]
    compose, image = (root / "docker-compose.yml").read_text("utf-8"), (root / "Dockerfile").read_text("utf-8")
    assert '["keys", "/keys"]' in compose
    assert set(re.findall(r"/keys/[\w.]+", compose)) == {"/keys/key", "/keys/keys.toml"}
    # Verifier, agent, demo, their two namesakes behind the radio, and Prometheus.
    assert compose.count("keys:/keys:ro") == 6
    assert re.findall(r"command:\n      - (\w+)\n      - --listen=\S+\n      - --insecure\n", compose) == ["proxy"]
    assert compose.count("--insecure") == 1, "the proxy alone has no keys to ask for"
    assert "install --directory --owner outrider --mode 700 /keys" in image
