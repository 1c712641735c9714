"""What ``outrider generate`` prints of an answer, for a reader and for a program."""

import json

import pytest
from rich.console import Console

from device_agent.events import DoneEvent, error_object
from device_agent.request import Mode
from outrider import demo, generate
from outrider.display import LineView, TextView
from outrider.generate import Request
from outrider.local import BUNDLED, Emulation, Models
from speculation.errors import LinkError
from tests.outrider.answers import EVENTS, agent_that_answers, message, stream_of

LOST = message("error", {"seq": 3, "error": error_object(LinkError("the verifier is gone"))})


def done(verified_count):
    return DoneEvent(1, "length", (1, 2, 0), (5, 7, 8), "The ox", verified_count, {}, {})


async def printed(capsys, response, is_json=False, mode="collaborate"):
    async with agent_that_answers(response) as (url, _):
        await generate.run(Request("The", mode=Mode(mode)), None, url, is_json)
    return capsys.readouterr()


async def test_text_that_was_never_verified_is_said_to_be_the_drafts(capsys):
    out, err = await printed(capsys, stream_of(EVENTS[0], done(1)))
    assert out == "The ox\n"
    assert err == "outrider: not verified: the last 2 of 3 tokens are the draft's alone\n"


@pytest.mark.parametrize(("verified_count", "mode"), [(3, "collaborate"), (0, "device")])
async def test_nothing_is_said_where_all_is_verified_or_nothing_was_to_be(verified_count, mode, capsys):
    assert await printed(capsys, stream_of(EVENTS[0], done(verified_count)), mode=mode) == ("The ox\n", "")


async def test_a_pipe_gets_the_text_alone_whatever_asks_for_colours(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert await printed(capsys, stream_of(*EVENTS[:1], done(3))) == ("The ox\n", "")
    assert isinstance(demo._view(Console(), "The", Mode.CLOUD), TextView)
    assert isinstance(demo._view(Console(), "The", Mode.COLLABORATE), LineView)


async def test_an_error_in_mid_stream_is_the_next_event_and_the_last(capsys):
    with pytest.raises(LinkError):
        await printed(capsys, stream_of(*EVENTS[:3]) + LOST, is_json=True)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["seq"] for event in events] == [0, 1, 2, 3]
    assert events[-1]["error"]["message"] == "the verifier is gone"


async def test_the_demo_too_tells_an_error_as_an_event(capsys):
    async with agent_that_answers(stream_of(*EVENTS[:3]) + LOST) as (url, _):
        with pytest.raises(LinkError):
            await demo.run(Request("The"), None, url, is_json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["code"] == "link"


async def test_what_the_demo_starts_is_said_beside_its_output(capsys, monkeypatch):
    warm = demo._warm_client
    async with agent_that_answers(stream_of(EVENTS[0]) + LOST) as (url, _):
        monkeypatch.setattr(demo, "_warm_client", lambda request, _, __, *rest: warm(request, None, url, *rest))
        with pytest.raises(LinkError):
            await demo.run(Request("The"), Emulation(), None, is_json=False)
    assert capsys.readouterr() == ("", "starting a verifier and an agent ...\n")


def test_the_demo_says_whose_tokens_its_figures_show(tmp_path):
    named = Models(tmp_path, tmp_path), f"those of {tmp_path} and {tmp_path}"
    for models, own in ((BUNDLED, "the bundled pair's own"), named):
        assert demo._whose(Emulation(), models) == f"Tokens and times are {own}, on this computer."
        assert demo._whose(Emulation(phone="dimensity-9300"), models).startswith(f"Tokens are {own}. Emulated figures show")
