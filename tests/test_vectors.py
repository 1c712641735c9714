"""The golden transcripts: nothing of them has changed, and both production sessions play them from the file alone."""

import json
import re
from dataclasses import replace

import pytest

from speculation.errors import OutriderError
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import Finished, Open, PairIdentity, Verdict
from speculation.protocol.verifier import VerifierSession
from speculation.wire import codec
from tests.support.transcripts import FOLDER, SESSIONS, plain, status, text_of

MAX_ROWS = 64


def steps_of(name, at=None):
    steps = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["steps"]
    return [step for step in steps if at in (None, step["at"])]


def messages_of(name):
    return {sent["message"]: sent for step in steps_of(name) for sent in step.get("sends", ())}


def bytes_of(sends):
    return [bytes.fromhex(sent["hex"]) for sent in sends]


def device_of(name):
    given = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["session"]
    given["identity"] = PairIdentity(**given["identity"])
    given["parameters"] = SamplingParameters(**given["parameters"] | {"seed": int(given["parameters"]["seed"])})
    return DeviceSession(**given)


def test_the_transcripts_are_those_that_the_sessions_write():
    written = {path.stem: path.read_text("utf-8") for path in FOLDER.glob("*.json")}
    assert written == {name: text_of(name) for name in SESSIONS}, "run: python -m tests.support.transcripts"


@pytest.mark.parametrize("name", SESSIONS)
def test_every_message_is_read_as_its_fields_and_written_as_its_bytes(name):
    for sent in messages_of(name).values():
        is_request = sent["type"] in ("Open", "Draft", "Cancel")
        data = bytes.fromhex(sent["hex"])
        message = codec.decode_request(data) if is_request else codec.decode_response(data)
        assert (type(message).__name__, plain(message)) == (sent["type"], sent["fields"])
        assert codec.encode(message).SerializeToString() == data


@pytest.mark.parametrize("name", SESSIONS)
def test_a_device_plays_its_side(name):
    device, messages = device_of(name), messages_of(name)
    for step in steps_of(name, "device"):
        match step:
            case {"receives": number}:
                update = device.receive(codec.decode_response(bytes.fromhex(messages[number]["hex"])))
                assert (list(device.final), list(device.path)) == (step["log"], step["path"])
                assert plain(update.logprobs) == step.get("logprobs", [])
            case {"does": "open"}:
                assert [codec.encode_request(device.open())] == bytes_of(step["sends"])
            case {"does": "cancel"}:
                assert [codec.encode_request(device.cancel())] == bytes_of(step["sends"])
            case {"does": "draft"}:
                for node in step["nodes"]:
                    device.drafted(**node)
                assert [codec.encode_request(device.flush(step["passes"]))] == bytes_of(step["sends"])


def taken(verifiers, step, message, credit):
    """What the verifier answers; an error where it refuses."""
    stream = step["stream"]
    if isinstance(message, Open):
        verifiers[stream] = VerifierSession(message, credit)
    else:
        verifiers[stream].receive(message)
    finished = verifiers[stream].finished
    return [] if finished is None else [codec.encode_response(finished)]


@pytest.mark.parametrize("name", SESSIONS)
def test_a_verifier_plays_its_side(name):
    credit = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["credit"]
    verifiers, messages = {}, messages_of(name)
    for step in steps_of(name, "verifier"):
        sends = bytes_of(sent for sent in step.get("sends", ()) if sent["type"] != "Opened")
        if "receives" in step:
            message = codec.decode_request(bytes.fromhex(messages[step["receives"]]["hex"]))
            if "status" in step:
                with pytest.raises(OutriderError) as refused:
                    taken(verifiers, step, message, credit)
                assert status(refused.value) == step["status"]
            else:
                assert taken(verifiers, step, message, credit) == sends
        elif step["does"] == "pass":
            verifier = verifiers[step["stream"]]
            plan = verifier.plan(MAX_ROWS)
            assert list(plan.nodes) == step["nodes"]
            told = [TokenLogprobs(one["logprob"], tuple(map(tuple, one["top"]))) for one in step.get("logprobs", ())]
            answers = [answer for answer in verifier.commit(plan, step["choices"], logprobs=told) if answer is not None]
            assert [codec.encode_response(answer) for answer in answers] == sends


@pytest.mark.parametrize("name", sorted(SESSIONS.keys() - {"credit_exceeded"}))
def test_a_transcript_ends_with_finished(name):
    last = messages_of(name)[steps_of(name, "device")[-1]["receives"]]
    assert last["type"] == Finished.__name__


def test_the_transcripts_hold_what_they_are_for():
    kinds = {name: {sent["fields"].get("kind") for sent in messages_of(name).values()} - {None} for name in SESSIONS}
    assert kinds["accept"] == {"ACCEPT"}
    assert kinds["decoded"] == {"DECODED"}
    assert "REVOKE_AND_CORRECT" in kinds["revoke_and_correct"]
    opens = [sent["fields"] for sent in messages_of("resume").values() if sent["type"] == "Open"]
    assert len(opens[1]["prefix"]) > len(opens[0]["prefix"])
    told = [step for step in steps_of("logprobs", "device") if "logprobs" in step]
    assert sum(len(step["logprobs"]) for step in told) == len(told[-1]["log"]) - len(device_of("logprobs").final)
    (refusal,) = [step["status"] for step in steps_of("credit_exceeded") if "status" in step]
    assert refusal["code"] == "RESOURCE_EXHAUSTED"


def test_a_verdict_that_is_off_by_one_is_told_by_a_replay():
    """The comparison can fail: a changed verdict gives the device another log, or none."""
    device, (first, second, *_) = device_of("accept"), [step for step in steps_of("accept", "device") if "receives" in step]
    messages = messages_of("accept")
    device.open()
    for token_id in (21, 22, 70023):
        device.drafted(token_id)
    device.flush()
    device.receive(codec.decode_response(bytes.fromhex(messages[first["receives"]]["hex"])))
    verdict = codec.decode_response(bytes.fromhex(messages[second["receives"]]["hex"]))
    assert isinstance(verdict, Verdict)
    device.receive(replace(verdict, count=2, last_node=2))
    assert list(device.final) != second["log"]


def test_every_vector_is_told_in_the_readme_and_every_link_leads_somewhere():
    text = (FOLDER / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)#\s]+)\)", text)
    assert [link for link in links if not (FOLDER / link).exists()] == []
    everywhere = [*FOLDER.glob("*.json"), *(FOLDER / "../../tests/speculation/vectors").glob("*.json")]
    told = {(FOLDER / link).resolve() for link in links}
    assert [path.name for path in everywhere if path.resolve() not in told] == []
