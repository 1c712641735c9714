"""Files of keys, good and bad; and that no key is ever shown."""

import contextlib
import logging
import os
from hashlib import sha256
from pathlib import Path

import pytest

import cloud_verifier.config
import device_agent.config
from speculation.errors import ConfigurationError
from speculation.keys import load_keys, read_key, read_keys
from speculation.tenants import Limits, Tenant, bearer

SECRET = "sesame-open-sesame-open"
OTHER = "poppy-poppy-poppy-poppy"
BOTH_CONFIGS = pytest.mark.parametrize("load", [cloud_verifier.config.load_config, device_agent.config.load_config])


def written(tmp_path, text, name="keys.toml"):
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_keys_and_digests_name_tenants_and_their_limits(tmp_path):
    digest = sha256(OTHER.encode()).hexdigest()
    path = written(
        tmp_path,
        f'[[keys]]\ntenant = "alice"\nkey = "{SECRET}"\nmax_sessions = 4\n'
        "tokens_per_s = 50\nbytes_per_s = 4096.5\nburst_s = 2\n"
        f'[[keys]]\ntenant = "bob"\nsha256 = "{digest}"\n',
    )
    keyring = load_keys(path)
    assert keyring.tenant_of(bearer(SECRET)) == Tenant("alice", Limits(4, 50.0, 4096.5, 2.0))
    assert keyring.tenant_of(bearer(OTHER)) == Tenant("bob", Limits(burst_s=10.0))
    assert keyring.tenant_of(bearer(digest)) is None


def test_a_tenant_may_have_two_keys_while_one_replaces_the_other(tmp_path):
    entries = [f'[[keys]]\ntenant = "a"\nkey = "{key}"\nmax_sessions = 2\n' for key in (SECRET, OTHER)]
    keyring = read_keys(written(tmp_path, "".join(entries)))
    assert keyring.tenant_of(bearer(SECRET)) == keyring.tenant_of(bearer(OTHER))


GOOD = f'[[keys]]\ntenant = "a"\nkey = "{SECRET}"\n'


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", r"has no \[\[keys\]\]"),
        ("keys = []", r"has no \[\[keys\]\]"),
        ("keys = 3", r"has no \[\[keys\]\]"),
        ("keys = [3]", r"entry 1: an entry is a table"),
        (f'keys = "{SECRET}"', r"has no \[\[keys\]\]"),
        (f"{SECRET} {SECRET}", r"no valid TOML \(at line 1, column \d+\)"),
        (f'[[keys]]\ntenant = "a"\nkey = "{SECRET}', r"no valid TOML \(at (line|end)"),
        (f"{GOOD}max_sessions = {'9' * 5000}", r"no valid TOML: .* number too long"),
        ("keys = " + "[" * 2000, r"no valid TOML: it is nested too deep"),
        (f"{SECRET} = 1\n{GOOD}", r"holds more than \[\[keys\]\]"),
        (f'[[keys]]\nkey = "{SECRET}"', r"entry 1: tenant must be a name"),
        (f'[[keys]]\ntenant = ""\nkey = "{SECRET}"', r"entry 1: tenant must be a name"),
        (f'[[keys]]\ntenant = 3\nkey = "{SECRET}"', r"entry 1: tenant must be a name"),
        (GOOD + "max_session = 3", r"entry 1: it has a field that does not exist; known: tenant, key, sha256, max_sessions"),
        (GOOD + f'"{OTHER}" = 3', r"entry 1: it has a field that does not exist"),
        ('[[keys]]\ntenant = "a"', r"entry 1: it must have either key or sha256"),
        (GOOD + f'sha256 = "{"a" * 64}"', r"entry 1: it must have either key or sha256"),
        ('[[keys]]\ntenant = "a"\nkey = ""', r"entry 1: key must be one word of at least 16"),
        ('[[keys]]\ntenant = "a"\nkey = "sesame-15-chars"', r"entry 1: key must be one word of at least 16"),
        ('[[keys]]\ntenant = "a"\nkey = "sesame sesame sesame"', r"entry 1: key must be one word"),
        ('[[keys]]\ntenant = "a"\nkey = "sesame-sesäme-sesame"', r"entry 1: key must be one word"),
        ('[[keys]]\ntenant = "a"\nkey = 1234567890123456', r"entry 1: key must be one word"),
        ('[[keys]]\ntenant = "a"\nsha256 = "abc"', r"entry 1: sha256 must be"),
        (f'[[keys]]\ntenant = "a"\nsha256 = "{SECRET}"', r"entry 1: sha256 must be"),
        ('[[keys]]\ntenant = "a"\nsha256 = 3', r"entry 1: sha256 must be"),
        (GOOD + "max_sessions = 0", r"entry 1: max_sessions must be a whole number, 1 or more"),
        (GOOD + "max_sessions = -1", r"entry 1: max_sessions must be"),
        (GOOD + "max_sessions = true", r"entry 1: max_sessions must be"),
        (GOOD + "max_sessions = 1.5", r"entry 1: max_sessions must be"),
        (GOOD + "tokens_per_s = -1", r"entry 1: tokens_per_s must be a number above 0"),
        (GOOD + "tokens_per_s = nan", r"entry 1: tokens_per_s must be"),
        (GOOD + "bytes_per_s = 0", r"entry 1: bytes_per_s must be a number above 0"),
        (GOOD + 'bytes_per_s = "many"', r"entry 1: bytes_per_s must be"),
        (GOOD + "burst_s = inf", r"entry 1: burst_s must be"),
        (GOOD + GOOD, r"entry 2: its key stands in an earlier entry"),
        (GOOD + f'[[keys]]\ntenant = "b"\nsha256 = "{sha256(SECRET.encode()).hexdigest()}"', r"entry 2: its key stands in an"),
        (GOOD + f'[[keys]]\ntenant = "a"\nkey = "{OTHER}"\nmax_sessions = 1', r"entry 2: tenant 'a' has other limits"),
    ],
)
@BOTH_CONFIGS
def test_a_bad_file_is_refused_by_file_entry_and_rule_and_shows_no_key(load, text, rule, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError, match=rule) as refused:
        load(flags={"keys": path})
    assert "keys.toml" in str(refused.value)
    assert "sesame" not in str(refused.value)
    assert "poppy" not in str(refused.value)


@BOTH_CONFIGS
def test_a_file_that_is_not_there_is_refused(load, tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml cannot be read: No such file"):
        load(flags={"keys": tmp_path / "nowhere.toml"})


@BOTH_CONFIGS
def test_with_keys_other_machines_may_come(load, tmp_path):
    with pytest.raises(ConfigurationError, match="name a file of keys"):
        load(flags={"host": "0.0.0.0"})
    assert load(flags={"host": "0.0.0.0", "keys": written(tmp_path, GOOD)}).host == "0.0.0.0"


@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_file_that_everybody_can_read_is_told_in_the_log(mode, is_told, tmp_path, caplog):
    path = written(tmp_path, GOOD)
    path.chmod(mode)
    with caplog.at_level(logging.WARNING):
        load_keys(path)
    assert ("can be read by everybody" in caplog.text) == is_told
    assert SECRET not in caplog.text


def test_a_callers_own_key_is_the_word_in_a_file(tmp_path):
    assert read_key(written(tmp_path, f"{SECRET}\n")) == SECRET


@pytest.mark.parametrize("text", ["", "\n", "sesame sesame", "sesame\nsesame", "sesäme"])
def test_a_file_with_anything_else_is_refused_and_not_shown(text, tmp_path):
    with pytest.raises(ConfigurationError, match="must hold one key") as refused:
        read_key(written(tmp_path, text))
    assert "sesame" not in str(refused.value)


@contextlib.contextmanager
def piped(text):
    """A path as a shell gives it for ``<(...)``."""
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    yield Path(f"/dev/fd/{reading}")
    os.close(reading)


@BOTH_CONFIGS
def test_keys_that_come_by_a_pipe_are_refused_since_they_are_read_twice(load):
    fault = "the key file .+ is a pipe, and it is read more than once"
    with piped(f'[[keys]]\ntenant = "alice"\nkey = "{SECRET}"\n') as pipe, pytest.raises(ConfigurationError, match=fault):
        load(flags={"keys": pipe})


def test_an_agents_own_key_by_a_pipe_is_refused_and_a_callers_is_not():
    with piped(SECRET) as pipe:
        with pytest.raises(ConfigurationError, match="is a pipe, and it is read more than once: write it to a file"):
            device_agent.config.load_config(flags={"verifier_key_file": pipe})
        assert read_key(pipe) == SECRET
