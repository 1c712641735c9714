"""The agent inside a program: the bundled pair, a real verifier over real gRPC, no HTTP."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
import textwrap
import threading
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from outrider import DeviceAgent
from outrider.client import Client, CorrectEvent, DoneEvent, SessionEvent, SpeculativeEvent, Transcript
from outrider.embedding import OF_THE_SERVICE, Settings
from speculation.errors import CapacityError, ConfigurationError, InvalidRequestError, LinkError, UnknownNameError
from tests.device_agent.doubles import wait_until

ON_ONE_AGENT = pytest.mark.asyncio(loop_scope="module")
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
PROMPT = "The module provides"
SAMPLED = {"max_tokens": 16, "temperature": 0.8, "seed": 7}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def verifier():
    async with cloud_verifier.server.serve(VerifierConfig(port=0)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def agent(verifier):
    async with DeviceAgent(verifier=verifier.target) as agent:
        yield agent


@ON_ONE_AGENT
async def test_the_text_is_that_of_the_http_route_and_so_are_the_kinds_of_events(agent, verifier):
    config = AgentConfig(port=0, verifier=verifier.target)
    async with device_agent.server.serve(config) as served, Client(served.url) as client:
        for options in (SAMPLED, SAMPLED | {"temperature": 0.0}):
            ours, theirs = [await each.generate(PROMPT, **options) for each in (agent, client)]
            assert (ours.token_ids, ours.text) == (theirs.token_ids, theirs.text)
            assert ours.verified_count == len(ours.token_ids) == 16
        same = (await client.health()).keys()
    assert (await agent.health()).keys() == same


@ON_ONE_AGENT
async def test_events_are_those_of_the_client_and_a_transcript_keeps_them(agent):
    text, events = Transcript(), []
    async for event in agent.stream([{"role": "user", "content": PROMPT}], **SAMPLED):
        text.apply(event)
        events.append(event)
    assert [event.seq for event in events] == list(range(len(events)))
    assert isinstance(events[0], SessionEvent)
    assert isinstance(events[-1], DoneEvent)
    assert (text.final_text, text.tentative_text) == (events[-1].text, "")


@ON_ONE_AGENT
async def test_several_answers_at_once_are_each_what_it_is_alone(agent):
    seeds = range(3)
    alone = [await agent.generate(PROMPT, **SAMPLED | {"seed": seed}) for seed in seeds]
    together = await asyncio.gather(*(agent.generate(PROMPT, **SAMPLED | {"seed": seed}) for seed in seeds))
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    assert len({each.token_ids for each in alone}) == 3


@ON_ONE_AGENT
async def test_leaving_the_iterator_cancels_and_nothing_is_left_running(agent, verifier):
    before = len(asyncio.all_tasks())  # not which: gRPC's server makes a new one to wait for whoever calls next
    async with aclosing(agent.stream(PROMPT, max_tokens=400)) as events:
        async for event in events:
            if isinstance(event, SpeculativeEvent | CorrectEvent):  # a quick verifier may be first
                break
        assert agent.num_streams == 1
    assert (await agent.health())["streams"] == agent.num_streams == 0
    await wait_until(lambda: verifier.verifier.num_sessions == 0)
    await wait_until(lambda: len(asyncio.all_tasks()) == before)


@ON_ONE_AGENT
async def test_a_bare_break_cancels_too(agent):
    async for _ in agent.stream(PROMPT, max_tokens=400):
        break
    await wait_until(lambda: agent.num_streams == 0)


@ON_ONE_AGENT
async def test_the_example_of_the_page_runs_as_it_stands(verifier, capsys):
    example = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)[2]
    assert "127.0.0.1:50051" in example
    scope = {}
    body = textwrap.indent(example.replace("127.0.0.1:50051", verifier.target), "    ")
    exec(f"async def example():\n{body}", scope)
    await scope["example"]()
    *shown, last = capsys.readouterr().out.splitlines()
    assert len(shown) > 4
    assert last == "16 of 16 tokens are the full model's"


@ON_ONE_AGENT
async def test_the_policy_of_the_page_on_routing_decides_where_it_is_given(verifier):
    page = (PAGE.parent / "routing.md").read_text("utf-8")
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], namespace := {})
    asked = namespace["AskOnceWarm"]()
    async with DeviceAgent(verifier=verifier.target, routing=asked, phone="dimensity-9300", heat="hot") as agent:
        events = [event async for event in agent.stream(PROMPT, mode="auto", max_tokens=4)]
    assert (events[1].mode, events[1].reason) == ("collaborate", "hot")
    assert events[-1].verified_count == 4


@ON_ONE_AGENT
async def test_a_request_is_judged_as_over_http(agent):
    with pytest.raises(InvalidRequestError, match="max_tokens must be at least 1, not 0") as refused:
        await agent.generate(PROMPT, max_tokens=0)
    assert refused.value.parameter == "max_tokens"
    with pytest.raises(UnknownNameError, match="unknown key 'colour'"):
        await agent.generate(PROMPT, colour="red")
    with pytest.raises(InvalidRequestError, match="a context of 512"):
        await agent.generate("word " * 600)


@ON_ONE_AGENT
async def test_an_agent_runs_once_at_a_time(agent):
    with pytest.raises(ConfigurationError, match="running already"):
        await agent.__aenter__()


@ON_ONE_AGENT
async def test_on_another_loop_it_says_so_and_nobody_waits_for_ever(agent):
    told = []

    def work():
        with pytest.raises(ConfigurationError, match="run_coroutine_threadsafe") as refused:
            asyncio.run(agent.generate(PROMPT, max_tokens=4))
        told.append(refused)

    thread = threading.Thread(target=work, daemon=True)  # so that a wait without an end keeps no test run alive
    thread.start()
    await asyncio.to_thread(thread.join, 20)
    assert (len(told), agent.num_streams) == (1, 0)


async def test_without_a_verifier_the_device_writes_alone_and_says_so():
    agent = DeviceAgent(verifier=None, max_streams=1, variant="random", drain_grace_s=30)
    with pytest.raises(ConfigurationError, match="inside its 'async with'"):
        await agent.generate(PROMPT)
    async with asyncio.TaskGroup() as tasks:
        async with agent:
            done = await agent.generate(PROMPT, max_tokens=8, mode="device")
            assert (len(done.token_ids), done.verified_count) == (8, 0)
            with pytest.raises(InvalidRequestError, match="use mode device"):
                await agent.generate(PROMPT, mode="cloud")
            reading = tasks.create_task(agent.generate(PROMPT, max_tokens=64, mode="device"))
            await wait_until(lambda: agent.num_streams == 1)
            with pytest.raises(CapacityError, match="1 answers are being written already"):
                await agent.generate(PROMPT)
        assert reading.done(), "who leaves the block waits for the answers that others read"
    assert len(reading.result().token_ids) == 64
    async with agent:  # once more
        assert (await agent.generate(PROMPT, max_tokens=1, mode="device")).token_ids


async def test_an_answer_that_fails_is_an_error_of_the_tree(unused_tcp_port):
    async with DeviceAgent(verifier=f"127.0.0.1:{unused_tcp_port}", variant="random", connect_timeout_s=1.0) as agent:
        with pytest.raises(LinkError, match=r"there is no verifier at .*; start one with: outrider verifier"):
            await agent.generate(PROMPT, mode="cloud")


async def test_both_ends_in_one_process_with_what_is_emulated():
    async with DeviceAgent.local(phone="dimensity-9300", cloud="mi300x", emulate="0.5B:int4") as agent:
        events = [event async for event in agent.stream(PROMPT, max_tokens=4)]
    assert events[0].phone == "dimensity-9300"
    assert events[-1].verified_count == 4
    assert {figure["basis"] for figure in events[-1].figures.values()} == {"emulated"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"verifier": "nowhere"}, "host:port"),
        ({"draft": "a"}, "by pair, or by draft and full together, not by draft"),
        ({"phone": "abacus"}, "unknown phone 'abacus'; known: apple-"),
        ({"colour": "red"}, "unknown key in settings: colour; known: auto_answer_tokens, auto_battery_percent"),
        ({"port": 8080, "keys": "keys.toml"}, "keys, port: only an agent that serves over HTTP"),
        ({"max_streams": 0}, "max_streams: Input should be greater than or equal to 1"),
        ({"verifier_key": "two words"}, "verifier_key: a key is one word"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_before_anything_is_loaded(settings, said):
    with pytest.raises((ConfigurationError, UnknownNameError)) as refused:
        DeviceAgent(**settings)
    assert said in str(refused.value)


async def test_a_local_agent_takes_no_verifier_of_somebody_elses():
    with pytest.raises(ConfigurationError, match=r"local\(\) starts one of its own"):
        await DeviceAgent.local(verifier="127.0.0.1:50051").__aenter__()


def test_every_setting_of_an_agent_is_one_of_its_own_or_of_the_service():
    assert Settings.__annotations__.keys() | OF_THE_SERVICE == AgentConfig.model_fields.keys()
    assert not Settings.__annotations__.keys() & OF_THE_SERVICE


@pytest.mark.parametrize("verb", ["stream", "generate", "health"])
def test_a_program_can_take_the_agent_or_a_client(verb):
    assert inspect.signature(getattr(DeviceAgent, verb)) == inspect.signature(getattr(Client, verb))


def test_the_name_is_there_at_once_and_loads_no_models():
    code = "import sys; from outrider import DeviceAgent; DeviceAgent(); print([m for m in sys.modules if m == 'onnxruntime'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
