"""Every code block of every page is run, or as much of it as a test may: two real services and a proxy stand behind the curls.

What is only read, not run, stands in ``ONLY_READ`` of tests/support/block_commands.py with the reason.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import tomllib
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from anyio.from_thread import start_blocking_portal

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from device_agent import schema
from device_agent.config import AgentConfig
from device_agent.schema import graphs
from device_agent.tasks.graph import TaskGraph
from outrider.proxy import serving as proxy
from outrider.proxy.service import Address
from speculation.engines.package import bundled_pair_path
from speculation.keys import load_keys
from speculation.shaping import profiles
from tests.support.block_commands import ONLY_READ, name_of, run_commands, run_outrider, session_of, unchanged
from tests.support.code_blocks import PAGES, ROOT, SHELL, blocks, parts, program_of
from tests.support.openapi_examples import check_all

HOSTS = ("127.0.0.1:8080", "127.0.0.1:50051", "127.0.0.1:9464", "127.0.0.1:8474")
ARROW = re.compile(r"(\w+)(?:->>|--x|-x|-->>)(\w+): \S.*")
EDGE = re.compile(r"(\w+)(\[[\w ]+\])? -->\|[\w ,:]+\| (\w+)(\[[\w ]+\])?")
NOTE = re.compile(r"Note (?:over|left of|right of) (\w+(?:,\w+)*): \S.*")
BLOCKS = blocks()


def talks(block):
    """Whether services must be there for it; where they need not be, none are started."""
    if block.language == "python":
        return any(host in block.text for host in HOSTS)
    is_asking = any(command.startswith(("curl ", "outrider generate ", "outrider tasks ")) for command in block.commands)
    return block.language in SHELL and is_asking


def of(*languages):
    found = [block for block in BLOCKS if block.language in languages and not talks(block)]
    return pytest.mark.parametrize("block", found, ids=str)


@asynccontextmanager
async def services():
    """The bundled pair behind an agent, and a proxy: by the host and port at which the pages have them."""
    free = Address("127.0.0.1", 0)
    async with AsyncExitStack() as stack:
        behind = cloud_verifier.server.serve(VerifierConfig(port=0, metrics_port=0, run_drafts="all"))
        verifier = await stack.enter_async_context(behind)
        config = AgentConfig(port=0, verifier=verifier.target)
        agent = await stack.enter_async_context(device_agent.server.serve(config, verifier=verifier.machine))
        upstream = Address("127.0.0.1", verifier.port)
        settings = proxy.ProxySettings(listen=free, upstream=upstream, network=profiles.network("none"), control=free)
        between = await stack.enter_async_context(proxy.serve(settings, lambda event: None))
        figures = urlsplit(verifier.metrics_url).netloc
        places = (urlsplit(agent.url).netloc, verifier.target, figures, str(between.control))
        yield dict(zip(HOSTS, places, strict=True))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a block runs: like a checkout, but empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("speculation", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_blocks_and_the_examples_of_routes_that_ask_services_are_answered(folder, subtests, capfd):
    """One test of all of them, so that one process starts the services, once."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(services()) as places:

        def here(text):
            """A text of a page with the addresses that the services have here."""
            for host, place in places.items():
                text = text.replace(host, place)
            return text

        asked = {"prompt": "The module provides", "max_tokens": 2, "temperature": 0.8, "seed": 7, "timeline": True}
        graph_id = session_of(here, graphs.REQUEST, "/v1/tasks")
        check_all(here("http://127.0.0.1:8080"), session_of(here, asked), graph_id, subtests)
        last = [block for block in BLOCKS if " -X PATCH " in block.text]  # they make all that follows slow
        for block in [*(block for block in BLOCKS if talks(block) and block not in last), *last]:
            with subtests.test(str(block)):
                run_commands(block, here) if block.language in SHELL else run_python(block, here, capfd)


def test_no_block_is_overlooked_and_every_language_is_known():
    known = {*SHELL, "python", "js", "json", "toml", "yaml", "mermaid", "text"}
    assert [(str(block), block.language) for block in BLOCKS if block.language not in known] == []
    fences = sum(len(re.findall(r"^\s*(?:```|~~~)", page.read_text("utf-8"), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * len(BLOCKS), "a fence ends where it began"
    hidden = [page.name for page in PAGES if re.search(r"\n\n    (?:outrider|python|pip|curl|make) ", page.read_text("utf-8"))]
    assert hidden == [], "put commands between fences"


def test_what_is_only_read_still_occurs():
    lines = [line for block in BLOCKS if block.language in SHELL for line in block.commands]
    programs = {name_of(part) for line in lines for part in parts(line)}
    programs |= {f"{block.page} python" for block in BLOCKS if block.language == "python"}
    assert sorted(ONLY_READ.keys() - programs) == []


@of(*SHELL)
def test_the_commands_of_a_block_do_what_they_say(block, folder):
    """The folders that its reader has are there."""
    for name in re.findall(r"\b(?:CHECKPOINT|FULL|PACKAGE)\b", block.text):
        (folder / name).mkdir(exist_ok=True)
    run_commands(block)


@of("python")
def test_the_python_of_a_block_runs(block, folder, capfd):
    """What a block says that its reader has lies in the folder: weights, their configuration, a tokenizer."""
    for name in re.findall(r'"([\w.]+\.(?:safetensors|json))"', block.text):
        shutil.copy(bundled_pair_path() / "draft" / name, name)
    run_python(block, unchanged, capfd)


def run_python(block, here, capture):
    compiled = compile(here(block.text), str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if f"{block.page} python" in ONLY_READ:
        return
    capture.readouterr()
    if (work := eval(compiled, {})) is not None:
        asyncio.run(work)
    assert "print(" not in block.text or capture.readouterr().out.strip()


@of("js")
def test_the_javascript_of_a_block_can_be_read(block, tmp_path):
    """tests/outrider/test_clients_page.py runs it."""
    if shutil.which("node") is None:
        pytest.skip("there is no node on the path")
    (tmp_path / "block.mjs").write_text(block.text, "utf-8")
    done = subprocess.run(["node", "--check", tmp_path / "block.mjs"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@of("json")
def test_the_json_of_a_block_is_what_it_looks_like(block):
    lines = [json.loads(line) for line in block.text.splitlines()] if block.text.count("\n{") else [json.loads(block.text)]
    for value in lines:
        if "event" in value:
            jsonschema.validate(value, schema.stream_schema())
        elif "tasks" in value:
            TaskGraph.from_json(value)
            jsonschema.validate(value, graphs.request_schema())
        elif {"prompt", "messages"} & value.keys():
            jsonschema.validate(value, schema.request_schema())
        elif "logger" in value:
            assert list(value)[:4] == ["time", "level", "logger", "message"]
            module = ROOT / (value["logger"].replace(".", "/") + ".py")
            assert f'"{value["message"]}"' in module.read_text("utf-8")


@of("toml")
def test_the_toml_of_a_block_is_taken_by_what_it_is_for(block, tmp_path):
    file = tmp_path / "block.toml"
    file.write_text(block.text, "utf-8")
    file.chmod(0o600)
    settings = tomllib.loads(block.text)
    if "tasks" in settings:
        TaskGraph.from_json(settings)
        return
    if "keys" in settings and isinstance(settings["keys"], list):
        assert load_keys(file) is not None
        return
    takers = [kind for kind in (AgentConfig, VerifierConfig) if settings.keys() <= kind.model_fields.keys()]
    assert takers, "a file of keys, or settings of a service"
    for kind in takers:
        kind(**settings)


@of("yaml")
def test_the_yaml_of_a_block_starts_what_there_is(block):
    documents = list(yaml.safe_load_all(block.text))
    assert all(isinstance(document, dict) for document in documents)
    for document in documents:
        with contextlib.suppress(KeyError):
            _, _, arguments = program_of(document["spec"]["entrypoint"])
            run_outrider(arguments)


@of("mermaid")
def test_a_diagram_has_arrows_and_notes_between_ends_that_it_names(block):
    kind, *lines = [line.strip() for line in block.text.splitlines()]
    if kind == "flowchart LR":
        edges = [EDGE.fullmatch(line) for line in lines]
        assert all(edges)
        named = {edge[end] for edge in edges for end, name in ((1, 2), (3, 4)) if edge[name]}
        assert {edge[end] for edge in edges for end in (1, 3)} == named
        return
    assert kind == "sequenceDiagram"
    ends = {line.split()[1] for line in lines if line.startswith("participant ")}
    rest = [line for line in lines if not line.startswith("participant ")]
    matches = [ARROW.fullmatch(line) or NOTE.fullmatch(line) for line in rest]
    assert [line for line, match in zip(rest, matches, strict=True) if match is None or ";" in line or "#" in line] == []
    assert {end for match in matches for group in match.groups() for end in group.split(",")} <= ends
