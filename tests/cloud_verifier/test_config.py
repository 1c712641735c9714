"""The verifier's configuration."""

from typing import get_args

import pytest

from cloud_verifier.config import VerifierConfig, load_config
from speculation.engines.remote_routes import ROUTES
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
    with pytest.raises(ConfigurationError, match=r"slots; known: cache_bytes, cloud, credit, .*drain_grace_s.*num_slots"):
        VerifierConfig(slots=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_slots", 0),
        ("cache_bytes", 0),
        ("max_rows", 0),
        ("credit", 1),
        ("credit", 2**32),
        ("port", 70000),
        ("drain_grace_s", -1),
        ("gather", 0),
        ("draft_length", -1),
        ("retry_after_s", float("inf")),
        ("retry_after_s", 1e300),
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


URL = "http://127.0.0.1:8000"


def test_a_server_for_the_full_model_is_named_by_every_source(monkeypatch, tmp_path):
    file = tmp_path / "verifier.toml"
    file.write_text('full_url = "https://models.example/x/"\nfull_route = "sglang"\nfull_logprobs = -1\n')
    config = load_config(file)
    assert (config.full_url, config.full_route, config.full_logprobs) == ("https://models.example/x", "sglang", -1)
    monkeypatch.setenv("OUTRIDER_VERIFIER_FULL_URL", URL)
    monkeypatch.setenv("OUTRIDER_VERIFIER_FULL_LOGPROBS", "50")
    monkeypatch.setenv("OUTRIDER_VERIFIER_FULL_API_KEY", "sesame")
    config = load_config(file, {"full_model": "org/model"})
    assert (config.full_url, config.full_model, config.full_logprobs) == (URL, "org/model", 50)
    assert config.full_api_key.get_secret_value() == "sesame"
    assert "sesame" not in f"{config!r} {config}"


def test_by_default_the_verifier_runs_the_full_model():
    config = VerifierConfig()
    assert (config.full_url, config.full_route, config.full_logprobs) == (None, "vllm", 20)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://host", "http://", "http://host:port", "http://host:99999", "http://a b", 8000, URL + "/?a=b"],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigurationError, match=r"full_url: an address like http://127.0.0.1:8000 \(got "):
        VerifierConfig(full_url=url)


def test_an_address_has_no_key_in_it_and_no_version():
    for url in ("http://user:sesame@host", "ftp://sesame@host:port"):
        with pytest.raises(ConfigurationError, match=r"without a name or key in it; .*_VERIFIER_FULL_API_KEY") as refused:
            VerifierConfig(full_url=url)
        assert "sesame" not in str(refused.value)
    with pytest.raises(ConfigurationError, match="the address without its /v1"):
        VerifierConfig(full_url=URL + "/v1/")


@pytest.mark.parametrize("number", [0, -2, 2**21 + 1, "many", True, None, 1.5])
def test_a_number_of_log_probabilities_out_of_range_is_refused(number):
    with pytest.raises(ConfigurationError, match=r"full_logprobs: 1 to 2097152, or -1 for all \(got "):
        VerifierConfig(full_url=URL, full_logprobs=number)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel", 5, ["a"]])
def test_a_key_that_fits_in_no_header_is_refused_and_not_shown(key):
    with pytest.raises(ConfigurationError, match=r"^full_api_key: a key is one word of plain characters$"):
        VerifierConfig(full_url=URL, full_api_key=key)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"full_route": "llama"}, "full_route: Input should be 'vllm', 'vllm-prefixes' or 'sglang'"),
        ({"full_timeout_s": 0}, "full_timeout_s"),
        ({"variant": "fp32"}, "full_url and variant: the server has loaded what it runs"),
        ({"emulate": "own"}, "full_url and emulate 'own': its size is not known"),
    ],
)
def test_settings_that_mean_nothing_with_a_server_are_refused(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        VerifierConfig(full_url=URL, **settings)


@pytest.mark.parametrize(
    "settings",
    [{"full_model": "m"}, {"full_route": "vllm"}, {"full_logprobs": 20}, {"full_timeout_s": 1}, {"full_api_key": "k"}],
)
def test_settings_of_a_server_that_is_not_named_are_refused(settings):
    with pytest.raises(ConfigurationError, match=f"{next(iter(settings))}: without full_url there is no server to ask"):
        VerifierConfig(**settings)


def test_the_routes_are_those_that_there_are():
    assert set(ROUTES) == set(get_args(VerifierConfig.model_fields["full_route"].annotation))
