"""What of a store a verifier can see: all bytes that an agent writes to it, over real gRPC, with the bundled pair."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import pytest

pytest.importorskip("apsw", reason="the extra outrider[rag]")
pytest.importorskip("sqlite_vec", reason="the extra outrider[rag]")

import cloud_verifier.server
from cloud_verifier.config import VerifierConfig
from device_agent.build import build_agent
from device_agent.config import AgentConfig
from device_agent.request import StreamRequest
from device_agent.retrieval.asking import Into, Private, Retrieve
from device_agent.retrieval.documents import Cut, Label
from device_agent.retrieval.store import Store
from speculation.errors import PrivateTextError
from speculation.protocol.messages import Draft, Open
from tests.device_agent.doubles import feed
from tests.device_agent.replay import Replay
from tests.device_agent.retrieval.scene import add, new_store, write_files
from tests.support import small_bert
from tests.support.recorded_messages import messages_in
from tests.support.recording_relay import recorded

SECRET = (
    "Quorblex timers count 9417 purple ticks before zanfrith() returns the vermilion handle of Mistress Obolensky."
    " Quorblex timers then forget 2286 hollow ducats, and the umber ledger of Castle Dravenmoor is burnt at dusk."
)
PROMPT = "Quorblex timers count 9417 purple"
WORDS = ("zanfrith", "Obolensky", "ducats", "Dravenmoor")
NUM_TOKENS, N_GRAM = 24, 4


@dataclass(frozen=True)
class Seen:
    """One answer: its session event, its last, and what was written meanwhile."""

    session: dict
    done: dict
    written: bytes
    messages: list

    def secrets(self, pair) -> set:
        """Runs of tokens of the private text that were written, and are in neither the prompt nor the answer."""
        own = grams([*pair.encode(PROMPT)]) | grams(
            [*pair.encode(PROMPT), *self.done["token_ids"][: self.done["verified_count"]]]
        )
        return {gram for chain in chains(self) for gram in grams(chain)} & (grams(pair.encode(SECRET)) - own)


def grams(token_ids):
    return {tuple(token_ids[start : start + N_GRAM]) for start in range(len(token_ids) - N_GRAM + 1)}


def chains(seen):
    """Every text that the written messages spell: prefixes, and each drafted path behind what was final before it."""
    log = [*seen.done["prompt_token_ids"], *seen.done["token_ids"][: seen.done["verified_count"]]]
    paths = {}
    for message in seen.messages:
        if isinstance(message, Open):
            yield list(message.prefix)
            paths = {}
        elif isinstance(message, Draft):
            for node in message.nodes:
                before = paths[node.parent] if node.parent else log[: node.root_position]
                paths[node.number] = [*before, node.token_id]
                yield paths[node.number]


def agent_with(folder, target, **settings):
    """An agent with a private store."""
    path = folder / "store.db"
    with new_store(path, Cut(62, 8)) as store:
        add(store, write_files(folder / "files", {"secret.txt": SECRET}))
    config = {"rag_store": path, "rag_model": small_bert.write(folder / "bert")} | settings
    return build_agent(AgentConfig(port=0, verifier=target, **config))


def taken(relay):
    """All bytes that were written so far, and the messages in them."""
    streams = [bytes(sent) for sent in relay.sent]
    return b"".join(streams), [message for sent in streams for message in messages_in(sent)]


@contextlib.asynccontextmanager
async def asking(folder, **settings):
    """A function that asks an agent with a store, and the agent."""
    async with contextlib.AsyncExitStack() as stack:
        verifier = await stack.enter_async_context(cloud_verifier.server.serve(VerifierConfig(port=0)))
        target, relay = await stack.enter_async_context(recorded(verifier.target))
        agent = await stack.enter_async_context(await asyncio.to_thread(agent_with, folder, target, **settings))

        async def ask(**changes):
            before, known = taken(relay)
            replay, session = Replay(), None
            request = StreamRequest(PROMPT, **{"max_tokens": NUM_TOKENS, "temperature": 0.0, "seed": 1} | changes)
            async for event in agent.stream(request):
                session = session or event.to_json()
                feed(replay, event.to_json())
            assert replay.last["event"] == "done", replay.last
            written, messages = taken(relay)
            return Seen(session, replay.last, written[len(before) :], messages[len(known) :])

        yield ask, agent


def check_nothing_leaves(seen, pair):
    assert seen.secrets(pair) == set()
    assert [word for word in WORDS if word.encode() in seen.written] == []


async def test_nothing_of_a_private_store_is_on_the_wire(tmp_path):
    async with asyncio.timeout(100), asking(tmp_path) as (ask, agent):
        alone = await ask(retrieve=Retrieve())
        assert alone.written == b""
        assert alone.session["mode"] == "device"
        assert [(c["label"], c["in_prompt"]) for c in alone.session["retrieval"]["chunks"]][:1] == [("private", True)]
        assert agent.pair.decode(list(alone.done["prompt_token_ids"])) == f"{SECRET}\n\n{PROMPT}"

        plain = await ask()
        without = await ask(retrieve=Retrieve(private=Private.WITHHOLD))
        for seen in (plain, without):
            assert any(isinstance(message, Open) for message in seen.messages)
            assert any(isinstance(message, Draft) for message in seen.messages)
            check_nothing_leaves(seen, agent.pair)
        assert without.session["retrieval"]["chunks"] == []
        assert without.session["retrieval"]["withheld"] > 0
        assert without.done["token_ids"] == plain.done["token_ids"]


@pytest.mark.parametrize(
    "changes",
    [{"retrieve": Retrieve(private=Private.DRAFTS)}, {"mode": "cloud"}, {"reveal": "final"}],
    ids=["private drafts", "cloud", "final"],
)
async def test_what_would_take_private_text_off_the_device_is_refused_before_anything_is_written(tmp_path, changes):
    async with agent_with(tmp_path, "127.0.0.1:9") as agent:
        request = StreamRequest(PROMPT, **{"retrieve": Retrieve()} | changes)
        with pytest.raises(PrivateTextError, match=r"retrieve\.private"):
            await agent.start(request)
        assert agent.num_streams == 0


async def test_where_drafts_may_leave_they_quote_and_the_text_stays_the_full_models(tmp_path):
    """And so it is shown that the test above would see it."""
    async with asyncio.timeout(100), asking(tmp_path, rag_drafts_may_leave=True, rag_draft_share=0.9) as (ask, agent):
        plain = await ask()
        quoting = await ask(retrieve=Retrieve(private=Private.DRAFTS))
        assert quoting.secrets(agent.pair)
        assert plain.secrets(agent.pair) == set()
        assert quoting.done["token_ids"] == plain.done["token_ids"]
        assert quoting.done["prompt_token_ids"] == plain.done["prompt_token_ids"]
        with Store(tmp_path / "store.db", is_read_only=False) as store, store.change():
            document = store.document("files/secret.txt")
            store.put(
                type(document)(document.name, Label.SHARED, document.text, document.spans, document.vectors, document.root)
            )
        shared = await ask(retrieve=Retrieve())
        assert shared.secrets(agent.pair), "a store that is changed while the agent runs is read anew"
        assert shared.session["mode"] == "collaborate"
        assert agent.pair.decode(list(shared.done["prompt_token_ids"])) == f"{SECRET}\n\n{PROMPT}"
        drafts_alone = await ask(retrieve=Retrieve(into=Into.DRAFTS))
        assert drafts_alone.done["token_ids"] == plain.done["token_ids"]
        assert drafts_alone.secrets(agent.pair)
