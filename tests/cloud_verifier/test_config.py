"""The verifier's configuration."""

import pytest

from cloud_verifier.config import VerifierConfig, load_config
from speculation.errors import ConfigurationError


def test_the_defaults_bind_loopback_only():
    config = load_config()
    assert (config.host, config.port, config.variant, config.cloud) == ("127.0.0.1", 50051, None, "none")


def test_another_address_wants_insecure():
    with pytest.raises(ConfigurationError, match="insecure"):
        load_config(flags={"host": "0.0.0.0"})
    assert load_config(flags={"host": "0.0.0.0", "insecure": True}).host == "0.0.0.0"


def test_the_environment_is_read_under_its_own_prefix(monkeypatch):
    monkeypatch.setenv("OUTRIDER_VERIFIER_MAX_SESSIONS", "3")
    assert load_config().max_sessions == 3


def test_an_unknown_key_is_refused_and_the_known_ones_listed():
    with pytest.raises(ConfigurationError, match=r"slots; known: cloud, credit, .*drain_grace_s.*num_slots"):
        VerifierConfig(slots=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_slots", 0),
        ("max_rows", 0),
        ("credit", 1),
        ("port", 70000),
        ("drain_grace_s", -1),
        ("gather", 0),
        ("draft_length", -1),
    ],
)
def test_a_value_that_cannot_work_is_refused(key, value):
    with pytest.raises(ConfigurationError, match=key):
        VerifierConfig(**{key: value})


@pytest.mark.parametrize(("given", "patience"), [("auto", "auto"), ("never", "never"), ("0", 0.0), (20, 20.0), ("2.5", 2.5)])
def test_patience_is_a_word_or_milliseconds_from_every_source(given, patience, monkeypatch, tmp_path):
    assert load_config(flags={"patience": given}).patience == patience
    file = tmp_path / "verifier.toml"
    file.write_text(f"patience = {given!r}\n")
    assert load_config(file).patience == patience
    monkeypatch.setenv("OUTRIDER_VERIFIER_PATIENCE", str(given))
    assert load_config().patience == patience


def test_by_default_patience_goes_by_load():
    assert (VerifierConfig().patience, VerifierConfig().gather, VerifierConfig().draft_length) == ("auto", 1, 0)


@pytest.mark.parametrize("given", ["always", "-1", 2001, float("nan"), "", True, None, [1]])
def test_a_bad_patience_is_refused_with_what_would_be_right(given):
    with pytest.raises(ConfigurationError, match=r"patience: 'auto', 'never', or milliseconds from 0 to 2000 \(got "):
        VerifierConfig(patience=given)
