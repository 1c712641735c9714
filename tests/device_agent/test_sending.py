"""Who sends is woken only where there is something to say."""

from __future__ import annotations

import asyncio

import pytest

from device_agent.drafting.linear import Ahead, FixedLength
from device_agent.figures import Meter
from device_agent.sending import Sender
from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import Watched
from tests.device_agent.drafting.streams import Stream


class Link:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent = []

    async def send(self, message) -> None:
        self.sent.append(message)


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("policy", "says_pass"), [(Ahead(), False), (FixedLength(1), True)])
def test_a_wake_up_without_drafts_costs_a_look_only_where_a_pass_is_to_be_said(policy, says_pass):
    async def work():
        stream, link = Stream(Watched(), policy), Link()
        sender = Sender(stream.session, stream.drafter, Meter(0.0, False))
        looks = []
        send_s = stream.drafter.send_s
        stream.drafter.send_s = lambda now_s: looks.append(now_s) or send_s(now_s)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(sender.run(link))
            await turn()
            asked = len(looks)
            sender.wake()
            await turn()
            assert (len(looks), link.sent) == (asked, [])
            await stream.drafter.step()
            sender.wake()
            await turn()
            assert [len(draft.nodes) for draft in link.sent] == [1]
            stream.drafter.is_paused = True
            sender.wake()
            await turn()
            assert [draft.passes for draft in link.sent] == [False, True][: 1 + says_pass]
            asked = len(looks)
            sender.wake()
            await turn()
            assert len(looks) == asked
            sending.cancel()

    virtual_time.run(work())


def test_a_path_below_the_floor_is_told_once_a_verdict_with_all_that_was_held_back():
    async def work():
        stream, link = Stream(Watched(), Ahead(gather=30, pass_floor=0.02)), Link()
        sender = Sender(stream.session, stream.drafter, Meter(0.0, False))
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(sender.run(link))
            while not stream.drafter.says_pass:
                assert link.sent == []
                await stream.drafter.step()
                sender.wake()
                await turn()
            assert [(len(draft.nodes), draft.passes) for draft in link.sent] == [(len(stream.main), True)]
            await stream.drafter.step()
            sender.wake()
            await turn()
            assert len(link.sent) == 1
            sender.settled()
            sender.wake()
            await turn()
            assert [draft.passes for draft in link.sent] == [True, True]
            sending.cancel()

    virtual_time.run(work())


def test_a_new_stream_is_told_that_nothing_more_will_come_though_the_one_before_was():
    async def work():
        stream, links = Stream(Watched(), FixedLength(1)), [Link(), Link()]
        sender = Sender(stream.session, stream.drafter, Meter(0.0, False))
        await stream.drafter.step()
        stream.drafter.is_paused = True
        async with asyncio.TaskGroup() as tasks:
            for link in links:
                stream.session.open()
                sending = tasks.create_task(sender.run(link))
                await turn()
                sending.cancel()
        assert [[(len(draft.nodes), draft.passes) for draft in link.sent] for link in links] == [[(1, True)]] * 2

    virtual_time.run(work())
