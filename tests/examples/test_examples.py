"""Each example runs as it stands, against real services with keys; what it prints is what it says it shows."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import shutil
import socket
import sys
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import httpx
import matplotlib as mpl
import pytest
import pytest_asyncio
import uvicorn

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from examples.notes_app import app as notes
from outrider import DeviceAgent
from tests.device_agent.doubles import wait_until
from tests.support.keys import ALICE, key_file

EXAMPLES = Path(__file__).parents[2] / "examples"

ON_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def verifier():
    async with cloud_verifier.server.serve(VerifierConfig(port=0)) as running:
        yield running.target


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def agent(verifier, tmp_path_factory):
    """An agent's URL, and a file with a key that it lets in. Its network is slow: its drafts are there before any verdict."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "key").write_text(ALICE + "\n")
    (folder / "key").chmod(0o600)
    config = AgentConfig(port=0, verifier=verifier, keys=key_file(folder), network="lte")
    async with device_agent.server.serve(config) as running:
        yield running.url, folder / "key"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def text(verifier):
    """What the full model writes with the seed of the examples."""
    async with DeviceAgent(verifier=verifier, variant="random") as agent:
        done = await agent.generate("The module provides", mode="cloud", max_tokens=24, temperature=0.8, seed=7)
    return done.text


async def run(*command, code=0):
    """What a program printed, that must end with ``code``."""
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    here = ("env", f"PYTHONPATH={EXAMPLES.parent}")  # a script's own folder is on Python's path, not the one it runs in
    process = await asyncio.create_subprocess_exec(*here, *map(str, command), **pipes)
    out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    assert "Traceback" not in err.decode()
    return out.decode() if code == 0 else err.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on the path")
@ON_ONE_LOOP
async def test_curl_shows_the_routes(agent, text):
    shown = await run(EXAMPLES / "curl.sh", *agent)
    lines = [json.loads(line.removeprefix("data: ")) for line in shown.splitlines() if line.startswith(("{", "data: {"))]
    health, *events, completion = lines
    assert health["status"] == "ok"
    sse, ndjson = [event for event in events if event["event"] == "done"]
    assert sse["text"] == ndjson["text"] == completion["choices"][0]["text"]
    assert text.startswith(sse["text"])


@ON_ONE_LOOP
async def test_the_python_client_shows_an_answer_grow(agent, text):
    url, file = agent
    shown = await run(sys.executable, EXAMPLES / "python_client.py", url, "--key-file", file)
    assert "speculative: '' \x1b[90m'" in shown
    assert shown.splitlines()[-1] == f"again, the same seed: {text!r}"
    assert f"{text!r}: first word after " in shown


@ON_ONE_LOOP
async def test_without_its_key_the_python_client_says_what_is_missing(agent):
    said = await run(sys.executable, EXAMPLES / "python_client.py", agent[0], code=1)
    assert said.startswith("AuthenticationError: this agent wants a key")
    assert said.count("\n") == 1


@pytest.mark.parametrize("example", ["python_client.py", "openai_client.py"])
async def test_a_key_file_that_is_not_there_is_named_in_one_line(example, tmp_path):
    said = await run(sys.executable, EXAMPLES / example, "--key-file", tmp_path / "none", code=1)
    assert (said.count("\n"), str(tmp_path / "none") in said) == (1, True)


@ON_ONE_LOOP
async def test_openais_library_shows_the_same_text(agent, text):
    url, file = agent
    model, whole, pieces = (await run(sys.executable, EXAMPLES / "openai_client.py", url, "--key-file", file)).splitlines()
    assert model == "model: pydoc-full"
    shown = ast.literal_eval(whole.removeprefix("whole: "))
    assert text.startswith(shown)
    assert pieces.endswith(f" pieces: {shown!r}")


@pytest.mark.parametrize("command", [[sys.executable, EXAMPLES / "openai_client.py"], [EXAMPLES / "curl.sh"]])
@ON_ONE_LOOP
async def test_an_address_as_the_services_print_it_ends_with_a_slash_and_is_taken(verifier, command):
    if shutil.which("curl") is None and len(command) == 1:
        pytest.skip("there is no curl on the path")
    async with device_agent.server.serve(AgentConfig(port=0, verifier=verifier)) as running:
        assert "pydoc-full" in await run(*command, f"{running.url}/")


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on the path")
@ON_ONE_LOOP
async def test_the_javascript_client_follows_an_answer_and_leaves_another(agent, text):
    *finals, done, left = (await run("node", EXAMPLES / "javascript" / "client.mjs", *agent)).splitlines()
    finals = [json.loads(line.removeprefix("final: ")) for line in finals if line.startswith("final: ")]
    assert (finals[-1], left) == (text, "left")
    assert re.fullmatch(r"done: (\d+) of \1 tokens are the full model's", done)


@ON_ONE_LOOP
async def test_the_embedded_agent_needs_nothing_that_runs(text):
    shown = (await run(sys.executable, EXAMPLES / "embed.py")).splitlines()
    done = next(line for line in shown if line.startswith("       done  "))
    assert text.startswith(ast.literal_eval(done.removeprefix("       done  ").partition(" | ")[0]))
    assert [line for line in shown if line.endswith("12 of 12 tokens verified")] == shown[-5:-2]
    assert shown[-2:] == ["left early, answers that still run: 0", "refused: max_tokens must be at least 1, not 0"]


@asynccontextmanager
async def notes_at(agent):
    """The URL of the application on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(notes.build_app(nullcontext(agent)), log_config=None))
        server.capture_signals = nullcontext
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]))
            try:
                await wait_until(lambda: server.started or serving.done())
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True


@ON_ONE_LOOP
async def test_the_notes_application_completes_refuses_and_lets_go(verifier):
    async with (
        DeviceAgent(verifier=verifier) as agent,
        notes_at(agent) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        assert "<title>Notes</title>" in (await client.get("/")).text
        answer = await client.post("/complete", json={"text": "The module provides"})
        steps = [json.loads(line) for line in answer.text.splitlines()]
        expected = await agent.generate("The module provides", max_tokens=40, temperature=0.0, stop=["\n\n"])
        assert steps[-1] == {"final": expected.text, "tentative": ""}
        assert any(step["tentative"] for step in steps)
        refused = await client.post("/complete", json={"text": ""})
        assert (refused.status_code, refused.json()) == (400, {"error": "the prompt is empty"})
        assert (await client.get("/", headers={"host": "elsewhere.example"})).status_code == 400
        async with client.stream("POST", "/complete", json={"text": "The module provides"}) as leaving:
            await anext(leaving.aiter_lines())
        await wait_until(lambda: agent.num_streams == 0)


@ON_ONE_LOOP
async def test_the_notebook_runs_from_top_to_bottom_and_holds_no_outputs():
    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        book = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
        cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        assert [cell["outputs"] for cell in cells] == [[]] * len(cells)
        assert {cell["execution_count"] for cell in cells} == {None}
        scope = {}
        for cell in cells:
            # Fewer and shorter answers than a reader asks for: what is tested is that it works.
            source = "".join(cell["source"]).replace("MAX_TOKENS = 32", "MAX_TOKENS = 6").replace("(1, 2, 3)", "(1,)")
            code = compile(source, "notebook.ipynb", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if inspect.isawaitable(work := eval(code, scope)):
                await work
        figures = [plt.figure(number) for number in plt.get_fignums()]
        plt.close("all")
    assert [figure.axes[0].get_title() for figure in figures] == [
        "Acceptance, an answer a point",
        "One answer, two ways to write it",
    ]
    assert (scope["MAX_TOKENS"], len(scope["accepted"]), len(figures[0].axes[0].lines)) == (6, 4, 2)


def test_examples_use_what_is_public_alone():
    sources = [path.read_text("utf-8") for path in EXAMPLES.rglob("*.py")]
    book = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
    sources += ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    named = re.findall(
        r"^(?:from|import) ((?:outrider|device_agent|cloud_verifier|speculation)[\w.]*)", "\n".join(sources), re.M
    )
    assert set(named) == {"outrider", "outrider.client"}


def test_the_page_tells_of_every_example():
    page = (EXAMPLES / "README.md").read_text("utf-8")
    files = [path for path in sorted(EXAMPLES.rglob("*")) if path.suffix in (".py", ".sh", ".mjs", ".ipynb")]
    assert [path.name for path in files if f"({path.relative_to(EXAMPLES)})" not in page] == []
