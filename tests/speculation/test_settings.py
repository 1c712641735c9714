"""Configuration from all its sources."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

import cloud_verifier.config
import device_agent.config
from speculation.errors import ConfigurationError
from speculation.listening import is_loopback
from speculation.settings import Settings, load_settings, require_loopback

PREFIX = "OUTRIDER_SAMPLE_"


class Sample(Settings):
    host: str = "127.0.0.1"
    port: int = Field(50051, ge=0, le=65535)
    grace_s: float = 5.0
    name: str | None = None
    others: tuple[str, ...] = ()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sample.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_hold_where_nothing_is_said():
    assert load_settings(Sample, None, PREFIX) == Sample()


def test_flags_win_over_environment_over_file_over_defaults(tmp_path, monkeypatch):
    path = write(tmp_path, 'port = 1\ngrace_s = 1.5\nname = "file"\n')
    monkeypatch.setenv(PREFIX + "PORT", "2")
    monkeypatch.setenv(PREFIX + "NAME", "environment")
    got = load_settings(Sample, path, PREFIX, {"port": 3, "name": None})
    assert (got.host, got.grace_s, got.name, got.port) == ("127.0.0.1", 1.5, "environment", 3)


def test_the_environment_may_name_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv(PREFIX + "CONFIG", str(write(tmp_path, "port = 7\n")))
    assert load_settings(Sample, None, PREFIX).port == 7


def test_direct_construction_does_not_read_the_environment(monkeypatch):
    monkeypatch.setenv("PORT", "9")
    monkeypatch.setenv(PREFIX + "PORT", "9")
    assert Sample().port == 50051


def test_an_unknown_key_in_the_file_is_refused_and_known_ones_listed(tmp_path):
    with pytest.raises(ConfigurationError, match=r"prot; known: grace_s, host, name, others, port"):
        load_settings(Sample, write(tmp_path, "prot = 1\n"), PREFIX)


def test_an_unknown_key_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv(PREFIX + "PROT", "1")
    with pytest.raises(ConfigurationError, match="OUTRIDER_SAMPLE_PROT; known: OUTRIDER_SAMPLE_GRACE_S"):
        load_settings(Sample, None, PREFIX)


def test_a_list_in_the_environment_is_json(monkeypatch):
    monkeypatch.setenv(PREFIX + "OTHERS", '["a", "b"]')
    assert load_settings(Sample, None, PREFIX).others == ("a", "b")
    monkeypatch.setenv(PREFIX + "OTHERS", "a,b")
    with pytest.raises(ConfigurationError, match=r'"others".*like \["a", "b"\]'):
        load_settings(Sample, None, PREFIX)


def test_an_unknown_flag_is_refused():
    with pytest.raises(ConfigurationError, match="prot"):
        load_settings(Sample, None, PREFIX, {"prot": 1})


@pytest.mark.parametrize(("key", "value"), [("port", -1), ("port", "many"), ("grace_s", "long")])
def test_a_value_that_cannot_work_is_named(key, value):
    with pytest.raises(ConfigurationError, match=f"{key}: .*got"):
        load_settings(Sample, None, PREFIX, {key: value})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"absent\.toml cannot be read"):
        load_settings(Sample, tmp_path / "absent.toml", PREFIX)


@pytest.mark.parametrize("text", ["port =", "port = " + "9" * 5000, "port = " + "[" * 2000], ids=lambda text: text[:8])
def test_a_broken_file_is_named(tmp_path, text):
    with pytest.raises(ConfigurationError, match="no valid TOML"):
        load_settings(Sample, write(tmp_path, text), PREFIX)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Sample().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_leave(host):
    assert is_loopback(host)
    require_loopback(host, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_any_other_address_wants_insecure(host):
    with pytest.raises(ConfigurationError, match="insecure"):
        require_loopback(host, insecure=False)
    require_loopback(host, insecure=True)


@pytest.mark.parametrize("load", [cloud_verifier.config.load_config, device_agent.config.load_config])
def test_models_are_two_folders_from_any_source(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "abcd":
        Path(name).mkdir()
    file = tmp_path / "models.toml"
    file.write_text("draft = 'a'\nfull = 'b'\n")
    assert [(c.draft, c.full, c.pair) for c in [load(file)]] == [(Path("a"), Path("b"), None)]
    for service in ("VERIFIER", "AGENT"):
        monkeypatch.setenv(f"OUTRIDER_{service}_FULL", "c")
    assert load(file, {"draft": Path("d")}).draft == Path("d")
    assert load(file).full == Path("c")


@pytest.mark.parametrize("load", [cloud_verifier.config.load_config, device_agent.config.load_config])
@pytest.mark.parametrize("named", [("draft",), ("full",), ("pair", "draft"), ("pair", "full"), ("pair", "draft", "full")])
def test_models_named_in_two_ways_or_by_half_are_refused(load, named):
    with pytest.raises(ConfigurationError, match="by pair, or by draft and full together, not by " + " and ".join(named)):
        load(flags=dict.fromkeys(named, Path("a")))


@pytest.mark.parametrize("load", [cloud_verifier.config.load_config, device_agent.config.load_config])
@pytest.mark.parametrize("named", [("pair",), ("draft", "full")])
def test_models_that_are_not_there_are_bad_input(load, named, tmp_path):
    with pytest.raises(ConfigurationError, match=f"{named[0]}: .*nowhere is not a folder"):
        load(flags=dict.fromkeys(named, tmp_path / "nowhere"))
