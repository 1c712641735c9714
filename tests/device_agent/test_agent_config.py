from __future__ import annotations

import pytest

from device_agent.config import AgentConfig, load_config
from device_agent.routing.default import Thresholds
from speculation.errors import ConfigurationError, OutriderError
from tests.support.certificates import made


def test_flags_go_before_the_environment_and_that_before_the_file(tmp_path, monkeypatch):
    file = tmp_path / "agent.toml"
    file.write_text('port = 1\ndraft_depth = 2\nphone = "none"\n')
    monkeypatch.setenv("OUTRIDER_AGENT_PORT", "3")
    monkeypatch.setenv("OUTRIDER_AGENT_MAX_STREAMS", "5")
    loaded = load_config(file, {"max_streams": 7, "verifier": None})
    assert (loaded.port, loaded.draft_depth, loaded.max_streams) == (3, 2, 7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "0.0.0.0"}, "insecure"),
        ({"verifier": "nowhere"}, "host:port"),
        ({"verifier": "host:0"}, "host:port"),
        ({"phone": "brick"}, "known: "),
        ({"network": "pigeon"}, "known: "),
        ({"cloud": "nine"}, "known: "),
        ({"emulate": "big"}, "0.9B:int4"),
        ({"max_streams": 0}, "max_streams"),
        ({"pad_bytes": 10**9}, "pad_bytes must be 0, or 32 to 4096"),
        ({"tick_ms": -20}, "tick_ms must be 0, or 10 to 1000"),
        ({"pad_bytes": 4096, "tick_ms": 10}, "at least 32"),
        ({"battery_percent": 50}, "battery_percent: the profile none has no figures of energy; name a phone that has"),
        ({"battery_percent": 101, "phone": "dimensity-9300"}, "battery_percent"),
        ({"auto_stability": 1.5}, "auto_stability"),
        ({"retry_after_s": float("inf")}, "retry_after_s"),
        ({"retry_after_s": 1e300}, "retry_after_s"),
        ({"colour": 1}, "unknown key"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_would(values, message):
    with pytest.raises(OutriderError, match=message):
        AgentConfig(**values)


def test_other_machines_are_served_only_where_that_was_said():
    assert AgentConfig(host="0.0.0.0", insecure=True).host == "0.0.0.0"
    with pytest.raises(ConfigurationError):
        AgentConfig(host="192.168.1.5")


def test_the_thresholds_of_mode_auto_are_settings():
    settings = {"auto_stability": 0.1, "auto_prompt_tokens": 2, "auto_answer_tokens": 3, "auto_battery_percent": 4.0}
    assert AgentConfig(**settings).routing_policy().thresholds == Thresholds(0.1, 2, 3, 4.0)
    assert AgentConfig().routing_policy().thresholds == Thresholds()


def test_figures_are_emulated_as_soon_as_one_machine_is_played():
    assert not AgentConfig().is_emulated
    assert AgentConfig(network="lte").is_emulated
    assert AgentConfig(cloud="mi300x").is_emulated


def test_verifiers_are_known_by_the_name_that_they_are_looked_up_by_unless_another_is_given(tmp_path):
    ca = made(tmp_path, "verifier").ca

    def name_of(**changes):
        return AgentConfig(verifier_ca=ca, **changes).verifier_tls.name

    assert name_of(verifier="a.example:1,b.example:1") is None
    assert name_of(verifier="dns:///verifiers.example:1") == "verifiers.example"
    assert name_of(verifier="dns:///verifiers.example:1", verifier_name="other.example") == "other.example"
    with pytest.raises(ConfigurationError, match="verifier_name: without verifier_ca"):
        AgentConfig(verifier_name="other.example")
