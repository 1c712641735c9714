"""The examples of docs/clients.md, run as they stand against an agent."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest

from device_agent.server import serve
from device_agent.subprotocols import SUBPROTOCOL, key_name
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import VOCABULARY, agent_of, config, facts, verifier

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
MODULE = Path(__file__).parents[2] / "device_agent" / "static" / "outrider.mjs"
READS_ALL = facts(encode=lambda text: [ord(letter) % VOCABULARY for letter in text])


def examples(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
async def url():
    async with verifier() as made, asyncio.timeout(60):
        agent = agent_of(MemoryConnector(made), pair=READS_ALL)
        async with serve(config(), agent=agent) as running:
            yield running.url


def at(url, example):
    assert "http://127.0.0.1:8080" in example
    return example.replace("http://127.0.0.1:8080", url)


async def test_the_asynchronous_example_follows_an_answer(url, capsys):
    scope = {}
    exec(f"async def example():\n{textwrap.indent(at(url, examples('python')[0]), '    ')}", scope)
    await scope["example"]()
    assert_is_followed(capsys.readouterr().out)


async def test_the_example_without_a_loop_follows_an_answer(url, capsys):
    await asyncio.to_thread(exec, at(url, examples("python")[1]), {})
    assert_is_followed(capsys.readouterr().out)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on the path")
async def test_the_javascript_example_follows_an_answer(url, tmp_path):
    (tmp_path / "outrider.mjs").write_bytes(MODULE.read_bytes())
    (tmp_path / "example.mjs").write_text(at(url, examples("js")[0]), "utf-8")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("node", str(tmp_path / "example.mjs"), stdout=pipe, stderr=pipe)
    out, shouts = await process.communicate()
    assert process.returncode == 0, shouts.decode()
    assert_is_followed(out.decode())


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on the path")
async def test_the_example_of_a_key_on_a_socket_names_it_as_the_agent_reads_it(tmp_path):
    page = PAGE.with_name("stream.md").read_text("utf-8")
    (example,) = re.findall(r"^```js\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    stand_in = "class WebSocket { constructor(...given) { console.log(JSON.stringify(given)); } }\n"
    (tmp_path / "example.mjs").write_text(stand_in + example, "utf-8")
    process = await asyncio.create_subprocess_exec("node", str(tmp_path / "example.mjs"), stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert json.loads(out) == ["ws://127.0.0.1:8080/v1/stream", [SUBPROTOCOL, key_name("correct-horse-battery")]]


def assert_is_followed(printed):
    """Final text grows and is never changed; at the end nothing is tentative."""
    finals = [line.partition("|")[0] for line in printed.splitlines()]
    assert len(finals) > 64
    assert all(after.startswith(before) for before, after in itertools.pairwise(finals))
    assert len(finals[-1]) == 64
    assert printed.splitlines()[-1].endswith("|")
