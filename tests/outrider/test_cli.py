"""The command line: what it takes, what it refuses, and how it leaves."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from outrider import demo, generate, services
from speculation.shaping import profiles

ISSUED_FLAGS = {
    "demo": ["--prompt", "--list-prompts", "--phone", "--network", "--cloud", "--agent", "--json", "--seed", "--max-tokens"],
    "generate": [
        "--mode",
        "--max-tokens",
        "--temperature",
        "--top-p",
        "--top-k",
        "--seed",
        "--phone",
        "--network",
        "--cloud",
        "--agent",
        "--json",
        "--draft",
        "--full",
        "--variant",
        "--full-variant",
    ],
    "verifier": [
        "--host",
        "--port",
        "--config",
        "--insecure",
        "--cloud",
        "--pair",
        "--draft",
        "--full",
        "--full-url",
        "--full-route",
        "--run-drafts",
        "--pass-interval-ms",
        "--max-queued",
        "--max-kept",
    ],
    "agent": [
        "--host",
        "--port",
        "--verifier",
        "--config",
        "--insecure",
        "--phone",
        "--network",
        "--pair",
        "--draft",
        "--full",
    ],
    "proxy": [
        "--listen",
        "--upstream",
        "--network",
        "--seed",
        "--control",
        "--allowed-host",
        "--uplink-trace",
        "--downlink-trace",
        "--outages",
        "--print-tc",
        "--device",
        "--insecure",
        "--json",
    ],
    "version": [],
}


@pytest.mark.parametrize("verb", ISSUED_FLAGS)
def test_every_verb_has_its_flags(verb, outrider):
    code, shown, _ = outrider(verb, "--help")
    assert code == 0
    assert [flag for flag in ISSUED_FLAGS[verb] if f" {flag}" not in shown] == []


def test_the_version_is_that_of_the_package(outrider):
    from importlib.metadata import version

    assert outrider("version") == (0, version("outrider") + "\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate"], "prompt"),
        (["generate", ""], "the prompt is empty"),
        (["generate", "\udcff"], "bytes that are not UTF-8"),
        (["generate", "x", "--max-tokens", "0"], "max_tokens must be at least 1, not 0"),
        (["generate", "x", "--max-tokens", "-3"], "max_tokens must be at least 1, not -3"),
        (["generate", "x", "--max-tokens", "many"], "--max-tokens"),
        (["generate", "x", "--temperature", "-1"], "temperature must be from 0 to 100"),
        (["generate", "x", "--temperature", "nan"], "temperature"),
        (["generate", "x", "--top-p", "0"], "top_p must be over 0 and at most 1"),
        (["generate", "x", "--top-k", "-1"], "top_k must be 0 (off) or a positive number"),
        (["generate", "x", "--seed", "-1"], "seed must be from 0 to 2**64 - 1"),
        (["generate", "x", "--mode", "magic"], "--mode"),
        (["generate", "x", "--agent", "nonsense"], "is no URL of an agent"),
        (["generate", "x", "--agent", "http://127.0.0.1:1", "--phone", "none"], "--phone"),
        (["generate", "x", "--colour"], "No such option"),
        (["demo", "--prompt", "100000"], "there is no prompt 100000"),
        (["demo", "--prompt", "0"], "there is no prompt 0"),
        (["verifier", "--port", "70000"], "port"),
        (["verifier", "--host", "0.0.0.0"], "set insecure"),
        (["verifier", "--run-drafts", "some"], "run_drafts"),
        (["verifier", "--pass-interval-ms", "-1"], "pass_interval_ms"),
        (["agent", "--host", "0.0.0.0"], "set insecure"),
        (["agent", "--verifier", "nowhere"], "host:port"),
        (["agent", "--config", "there-is-no-such-file.toml"], "cannot be read"),
        (["agent", "--draft", "a"], "by pair, or by draft and full together, not by draft"),
        (["verifier", "--full-url", "model:8000"], "full_url: an address like http://127.0.0.1:8000 (got 'model:8000')"),
        (["verifier", "--full-url", "http://127.0.0.1:1", "--variant", "q4"], "full_url and variant"),
        (
            ["verifier", "--full-url", "http://127.0.0.1:1", "--full-route", "sglang", "--port", "0"],
            "start that server first, and check full_url",
        ),
        (["verifier", "--full-model", "m", "--full-logprobs", "5"], "full_model, full_logprobs: without full_url"),
        (["verifier", "--full", "a"], "by pair, or by draft and full together, not by full"),
        (["verifier", "--pair", "a", "--draft", "b", "--full", "c"], "not by pair and draft and full"),
        (["agent", "--pair", "a", "--draft", "b", "--full", "c"], "not by pair and draft and full"),
        (["generate", "x", "--draft", "a"], "not by draft"),
        (["demo", "--full", "a"], "not by full"),
        (["generate", "x", "--agent", "http://127.0.0.1:1", "--variant", "q4"], "has models of its own"),
        (["fly"], "No such command"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments, said, outrider):
    code, out, err = outrider(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("outrider: error: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("flag", "known"), [("--phone", profiles.phones()), ("--network", profiles.networks()), ("--cloud", profiles.clouds())]
)
def test_an_unknown_name_is_answered_with_those_that_exist(flag, known, outrider):
    for verb in (["generate", "x"], ["demo"]):
        code, _, err = outrider(*verb, flag, "abacus")
        assert code == 2
        assert "'abacus'" in err
        assert ", ".join(known) in err


def test_a_key_that_does_not_exist_is_refused_in_a_configuration_file(outrider, tmp_path):
    file = tmp_path / "verifier.toml"
    file.write_text("colour = 'red'\n")
    code, _, err = outrider("verifier", "--config", str(file))
    assert code == 2
    assert "unknown key" in err
    assert "colour" in err


def test_an_agent_that_is_not_there_is_exit_code_1(outrider, unused_tcp_port):
    code, out, err = outrider("generate", "x", "--agent", f"http://127.0.0.1:{unused_tcp_port}")
    assert (code, out) == (1, "")
    assert "start one with: outrider agent" in err
    assert err.count("\n") == 1


def test_a_failure_is_an_event_too_where_events_are_asked_for(outrider, unused_tcp_port):
    code, out, _ = outrider("generate", "x", "--agent", f"http://127.0.0.1:{unused_tcp_port}", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "link"


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        (("generate", "x", "--max-tokens", "0"), "max_tokens"),
        (("demo", "--prompt", "99"), "prompt"),
        (("tasks", "there-is-no-such-file.toml"), None),
    ],
    ids=str,
)
def test_what_is_refused_before_anything_is_started_is_an_event_too(arguments, param, outrider):
    code, out, err = outrider(*arguments, "--json")
    assert (code, json.loads(out)["error"]["param"], err.count("\n")) == (2, param, 1)
    code, out, _ = outrider(*arguments)
    assert (code, out) == (2, "")


def test_an_interrupt_leaves_without_a_trace(outrider, monkeypatch):
    async def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "run", interrupted)
    assert outrider("generate", "x") == (130, "", "")


def test_the_page_tells_every_exit_code_and_so_does_the_help(outrider):
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text("utf-8")
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == ["0", "1", "2", "130"]
    assert "Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted." in outrider("--help")[1]


HEEDING = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('outrider', run_name='__main__', alter_sys=True)"
)
"""What a shell starts in the background ignores interrupts, and so does all that it starts. Set in the child itself: a function
between fork and exec would run gRPC's handlers of a fork, which then complain on the child's standard error now and then."""


def test_ctrl_c_ends_an_answer_with_130_and_without_a_trace():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-c", HEEDING, "generate", "The module provides", "--agent", url]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        with silent.accept()[0] as asking:
            assert asking.recv(4096).startswith(b"POST /v1/stream")
            process.send_signal(signal.SIGINT)
            assert (*process.communicate(timeout=60), process.returncode) == ("", "", 130)


def test_who_stops_reading_ends_the_command_without_a_trace():
    command = [sys.executable, "-m", "outrider", "demo", "--list-prompts", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == ("", 1)
    process.stderr.close()


@pytest.mark.parametrize("arguments", [["generate", "x", "--colour"], ["generate"], ["agent", "--port", "many"]], ids=" ".join)
def test_a_command_that_cannot_be_names_its_page_of_help(arguments, outrider):
    code, _, err = outrider(*arguments)
    assert (code, err.endswith(f" {arguments[0]} --help)\n")) == (2, True)


def test_a_key_file_that_is_not_there_is_told_how_to_make_one(outrider, tmp_path):
    code, _, err = outrider("agent", "--keys", tmp_path / "keys.toml")
    assert (code, err.endswith("No such file or directory; make one with: outrider keys FOLDER\n")) == (2, True)


def test_an_address_of_somebody_else_is_told_which_would_do(outrider):
    code, _, err = outrider("agent", "--host", "192.0.2.77", "--insecure", "--variant", "random")
    assert (code, "name an address of this machine, or 0.0.0.0 for all of them" in err) == (2, True)


def test_an_end_of_input_is_no_answer(outrider, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", Mock(side_effect=EOFError))
    code, _, err = outrider("demo")
    assert (code, err.strip()) == (1, "outrider: error: the input ended")


def test_help_is_shown_where_nothing_is_asked(outrider):
    code, out, err = outrider()
    assert code == 2
    assert "demo" in out + err


def test_held_out_prompts_are_listed_by_number(outrider):
    code, out, _ = outrider("demo", "--list-prompts")
    lines = out.splitlines()
    assert code == 0
    assert len(lines) >= 40
    assert [line.split()[0] for line in lines] == [str(number) for number in range(1, len(lines) + 1)]
    told = [json.loads(line) for line in outrider("demo", "--list-prompts", "--json")[1].splitlines()]
    assert [prompt["number"] for prompt in told] == list(range(1, len(lines) + 1))
    assert demo.choose_prompt(3, is_quiet=True) == told[2]["text"]


def test_nobody_is_asked_where_there_is_no_terminal():
    assert demo.choose_prompt(None, is_quiet=False) == demo.choose_prompt(1, is_quiet=True)


@pytest.mark.parametrize(("typed", "number"), [("", 1), ("3", 3), (" 2 ", 2)])
def test_a_prompt_is_chosen_by_number_at_a_terminal(typed, number, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: typed)
    assert demo.choose_prompt(None, is_quiet=False) == demo.choose_prompt(number, is_quiet=True)


def test_flags_of_an_agent_reach_its_settings(outrider, monkeypatch):
    seen = []

    async def serve(settings, _):
        seen.append(settings)

    monkeypatch.setattr("device_agent.server.run", serve)
    assert outrider("agent", "--draft-lookup", "0.2", "--generation-defaults", "none", "--draft-width", "2")[0] == 0
    assert (seen[0].draft_lookup, seen[0].generation_defaults, seen[0].draft_width) == (0.2, "none", 2)


def test_flags_of_a_verifiers_load_reach_its_settings(outrider, monkeypatch):
    seen = []

    async def serve(settings, _):
        seen.append(settings)

    monkeypatch.setattr("cloud_verifier.server.run", serve)
    flags = ["--run-drafts", "all", "--pass-interval-ms", "12.5", "--max-queued", "0", "--max-kept", "7"]
    flags += ["--cache-bytes", "1000000"]
    assert outrider("verifier", *flags)[0] == 0
    [settings] = seen
    assert (settings.run_drafts, settings.pass_interval_ms) == ("all", 12.5)
    assert (settings.max_queued, settings.max_kept, settings.cache_bytes) == (0, 7, 1000000)


def test_flags_of_a_pool_reach_its_settings_and_the_pool_is_what_runs(outrider, monkeypatch):
    seen = []

    async def serve(settings, _):
        seen.append(settings)

    monkeypatch.setattr("outrider.pool.running.run", serve)
    flags = ["--replicas", "3", "--ray-address", "auto", "--replica-cpus", "2.5", "--replica-ports", "50060-50062"]
    assert outrider("verifier", "--engine-pool", "ray", *flags)[0] == 0
    [settings] = seen
    assert (settings.replicas, settings.ray_address, settings.replica_cpus) == (3, "auto", 2.5)
    assert settings.replica_ports == "50060-50062"
    assert outrider("verifier", *flags)[0] == 2


def key_seen(outrider, monkeypatch, *arguments):
    """The exit code, the key that a command was about to use, and what it said."""
    seen = []

    async def run(*_, key=None, **__):
        seen.append(key)

    monkeypatch.setattr("outrider.generate.run", run)
    code, out, err = outrider("generate", "x", *arguments)
    return code, seen, out + err


def test_the_key_for_a_running_agent_is_read_from_a_file_or_the_environment(outrider, monkeypatch, tmp_path):
    file = tmp_path / "key"
    file.write_text("sesame-file\n")
    file.chmod(0o600)
    running = ["--agent", "http://127.0.0.1:1"]
    assert key_seen(outrider, monkeypatch, *running) == (0, [None], "")
    assert key_seen(outrider, monkeypatch, *running, "--key-file", str(file)) == (0, ["sesame-file"], "")
    monkeypatch.setenv("OUTRIDER_API_KEY", "sesame-environment")
    assert key_seen(outrider, monkeypatch, *running) == (0, ["sesame-environment"], "")
    assert key_seen(outrider, monkeypatch, *running, "--key-file", str(file)) == (0, ["sesame-file"], "")
    assert key_seen(outrider, monkeypatch) == (0, [None], "")
    code, seen, said = key_seen(outrider, monkeypatch, "--key-file", str(file))
    assert (code, seen) == (2, [])
    assert "--agent" in said


@pytest.mark.parametrize("key", ["two sesames", "sesäme"])
def test_what_is_no_key_is_bad_input_and_not_shown(key, outrider, monkeypatch, tmp_path):
    monkeypatch.setenv("OUTRIDER_API_KEY", key)
    code, seen, said = key_seen(outrider, monkeypatch, "--agent", "http://127.0.0.1:1")
    assert (code, seen, "OUTRIDER_API_KEY" in said, "ses" in said) == (2, [], True, False)
    monkeypatch.delenv("OUTRIDER_API_KEY")
    (tmp_path / "key").write_text(key)
    code, seen, said = key_seen(outrider, monkeypatch, "--agent", "http://127.0.0.1:1", "--key-file", str(tmp_path / "key"))
    assert (code, seen, "must hold one key" in said, "ses" in said) == (2, [], True, False)


def test_what_generate_is_not_told_is_left_to_the_agent():
    assert generate.Request("text").options() == {"mode": "collaborate"}
    asked = generate.Request("text", temperature=0.0, top_p=1.0, top_k=0, seed=3).options()
    assert asked == {"mode": "collaborate", "temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 3}


@pytest.mark.parametrize("verb", ["verifier", "agent"])
def test_a_service_in_json_says_where_it_listens_in_its_log(verb, outrider, monkeypatch):
    heard, frozen = [], []
    monkeypatch.setattr(services, "freeze_heap", lambda: frozen.append(list(heard)))
    monkeypatch.setattr(services, "start_log", lambda log_format, _: heard.append(log_format.value))
    monkeypatch.setattr(services, "_log", Mock(info=heard.append))
    running = Mock(target="127.0.0.1:1", url="http://127.0.0.1:2", metrics_url="http://127.0.0.1:3/metrics")

    async def run(_settings, on_ready):
        on_ready(running)

    monkeypatch.setattr(f"{'cloud_verifier' if verb == 'verifier' else 'device_agent'}.server.run", run)
    assert outrider(verb, "--log-format", "json") == (0, "", "")
    said = {
        "verifier": "verifier on 127.0.0.1:1, figures at http://127.0.0.1:3/metrics",
        "agent": "agent on http://127.0.0.1:2",
    }
    assert heard == ["json", said[verb]]
    assert frozen == [["json"]]  # with all loaded, and before anybody is told where it listens
    assert outrider(verb) == (0, "", said[verb] + "\n")
