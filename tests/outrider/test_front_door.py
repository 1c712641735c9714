"""The command line end to end: the two services as processes of their own, the real pair, real gRPC and HTTP on free ports."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from outrider import __main__ as front
from outrider import cli, probe
from outrider.comparison import FIGURES

OUTRIDER = [sys.executable, "-c", "from outrider.cli import main; main()"]
STARTED = re.compile(r"(?:verifier|agent) on (\S+)")

pytestmark = pytest.mark.timeout(240)


@contextlib.contextmanager
def service(*arguments):
    """Where a service listens, and its process; it must leave in order when it is interrupted."""
    process = subprocess.Popen([*OUTRIDER, *arguments], stderr=subprocess.PIPE, text=True)
    said = []
    try:
        while not said or STARTED.search(said[-1]) is None:
            said.append(process.stderr.readline())
            assert said[-1], f"{arguments[0]} ended with {process.wait()}: {''.join(said)}"
        yield STARTED.search(said[-1])[1], process.pid
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


@pytest.fixture(scope="module")
def services():
    with service("verifier", "--port", "0") as (target, _), service("agent", "--port", "0", "--verifier", target) as (url, _):
        yield target, url


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="Linux with two processors")
def test_a_verifiers_loop_interrupts_no_forward():
    with service("verifier", "--port", "0") as (_, pid):
        policies = {int(task.name): os.sched_getscheduler(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()}
        assert policies.pop(pid) == os.SCHED_BATCH
        assert os.SCHED_OTHER in policies.values()  # the engine's thread


@pytest.fixture
def outrider(services, capsys):
    """Runs a command against the running agent; gives its exit code, standard output and standard error."""

    def run(*arguments):
        code = cli.run(lambda: cli.app([*arguments, "--agent", services[1]], standalone_mode=False))
        return code, *capsys.readouterr()

    return run


def events_of(outrider, *arguments):
    code, out, err = outrider("generate", "The module provides", "--max-tokens", "16", "--json", *arguments)
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1"])
def test_both_services_say_that_they_are_healthy(services, proxy, monkeypatch):
    if proxy is not None:
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("http_proxy", proxy)
    target, url = services
    assert probe.is_healthy(f"grpc://{target}")
    assert probe.is_healthy(f"{url}/health")


def test_what_answers_in_no_http_is_not_healthy(services):
    assert not probe.is_healthy(f"http://{services[0]}")
    assert not probe.is_healthy("http://127.0.0.1:80 80/health")


def test_nobody_is_not_healthy(unused_tcp_port):
    assert not probe.is_healthy(f"grpc://127.0.0.1:{unused_tcp_port}")
    assert not probe.is_healthy(f"http://127.0.0.1:{unused_tcp_port}/health")


def test_json_is_one_event_a_line_and_the_last_is_done(outrider):
    events = events_of(outrider, "--temperature", "0.8", "--seed", "7")
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert events[0]["event"] == "session"
    assert events[0]["seed"] == 7
    done = events[-1]
    assert done["event"] == "done"
    assert len(done["token_ids"]) == done["verified_count"] == 16
    assert done["prompt_token_ids"]
    assert FIGURES.keys() <= done["figures"].keys()
    assert {figure["basis"] for figure in done["figures"].values()} == {"measured"}


@pytest.mark.parametrize(
    "sampling", [["--temperature", "0"], ["--temperature", "0.9", "--top-p", "0.9", "--top-k", "40"]], ids=" ".join
)
def test_collaboration_writes_what_the_cloud_alone_writes(sampling, outrider):
    ours, theirs = (events_of(outrider, "--mode", mode, "--seed", "3", *sampling)[-1] for mode in ("collaborate", "cloud"))
    assert (ours["token_ids"], ours["text"]) == (theirs["token_ids"], theirs["text"])


def test_a_pipe_gets_the_text_alone(outrider):
    done = events_of(outrider)[-1]
    code, out, err = outrider("generate", "The module provides", "--max-tokens", "16")
    assert (code, out, err) == (0, done["text"] + "\n", "")


def test_a_device_alone_writes_too(outrider):
    done = events_of(outrider, "--mode", "device")[-1]
    assert (len(done["token_ids"]), done["verified_count"]) == (16, 0)


@pytest.mark.parametrize(
    "arguments",
    [["generate", "word " * 4000], ["generate", "x", "--max-tokens", "1000000"]],
    ids=["a prompt over the context", "a limit over the context"],
)
def test_what_does_not_fit_the_context_is_refused(arguments, outrider):
    code, out, err = outrider(*arguments)
    assert (code, out) == (2, "")
    assert "context" in err


def test_where_no_limit_is_asked_for_the_answer_fits_what_the_prompt_leaves(outrider):
    code, out, err = outrider("generate", "word " * 500, "--json")
    assert (code, err) == (0, "")
    done = json.loads(out.splitlines()[-1])
    assert 500 < len(done["prompt_token_ids"]) + len(done["token_ids"]) <= 512


def test_the_demo_compares_three_ways_to_write(outrider):
    code, out, _ = outrider("demo", "--prompt", "2", "--max-tokens", "12")
    assert code == 0
    assert [label for label in FIGURES.values() if label not in out] == []
    assert "Same text: all 12 collaborative tokens equal those of the cloud alone." in out


def test_a_port_that_is_taken_is_one_clear_line(services):
    for verb, where in zip(("verifier", "agent"), services, strict=True):
        port = where.rpartition(":")[2]
        done = subprocess.run([*OUTRIDER, verb, "--port", port], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        helps = "stop what serves there, or name another port (0 takes a free one)"
        assert done.stderr == f"outrider: error: cannot listen on 127.0.0.1:{port}: Address already in use; {helps}\n"


@pytest.fixture
def short_output(monkeypatch):
    """Runs a command whose output stays in Python's buffer until it is done; gives its exit code and what it complains of."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    def run(file):
        ran = subprocess.run([*OUTRIDER, "version"], stdout=file, stderr=subprocess.PIPE, text=True, timeout=60)
        return ran.returncode, ran.stderr

    return run


def test_output_that_nobody_reads_ends_the_command_without_a_word(short_output):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        assert short_output(closed) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that takes nothing")
def test_a_disk_that_is_full_is_one_line(short_output):
    with open("/dev/full", "w") as full:
        assert short_output(full) == (1, "outrider: error: No space left on device\n")


def test_a_file_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "speed.svg").mkdir()
    plot = str(tmp_path / "speed.svg")
    assert cli.run(lambda: cli.app(["tokenspeed", "--plot", plot], standalone_mode=False)) == 1
    assert capsys.readouterr().err == f"outrider: error: {plot}: Is a directory\n"


@pytest.mark.parametrize(
    ("closed", "arguments", "code"), [(">&-", ["version"], 0), ("2>&-", ["generate", ""], 2), ("<&- >&- 2>&-", ["version"], 0)]
)
def test_a_stream_that_was_closed_before_the_start_takes_what_is_said(closed, arguments, code):
    command = [sys.executable, "-m", "outrider", *arguments]
    ran = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], capture_output=True, text=True, timeout=60)
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr
    assert "error" not in ran.stdout, "what is meant for standard error takes no other way"


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "▶"), ("ascii", r"\u25b6")])
def test_a_name_that_is_no_text_is_shown_as_escapes(encoding, sign, tmp_path, monkeypatch):
    folder = tmp_path / "▶"
    (folder / "na\udcffme").mkdir(parents=True)
    (folder / "na\udcffme" / "config.json").write_text("{}")
    (folder / "na\udcffme" / "model.onnx").write_bytes(b"")
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    ran = subprocess.run([sys.executable, "-m", "outrider", "models", "list", folder], capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert r"na\udcffme: does not load: " in ran.stdout.decode(encoding)
    assert rf"{sign}/na\udcffme has no tokenizer.json" in ran.stdout.decode(encoding)


def test_ctrl_c_while_the_command_is_being_loaded_ends_it_as_it_does_later(monkeypatch):
    class Interrupted(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "outrider.cli", Interrupted("outrider.cli"))
    with pytest.raises(SystemExit) as ended:
        front.main()
    assert ended.value.code == 130
