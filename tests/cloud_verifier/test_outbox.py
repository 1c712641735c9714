"""The queue of what a device is still to be told."""

import asyncio

import pytest

from cloud_verifier.outbox import Outbox
from speculation.errors import DeadlineError
from speculation.protocol.messages import Opened

MESSAGE = Opened("s", 32, "f")


async def test_what_was_put_before_the_end_is_still_read():
    outbox = Outbox(4, lambda: None)
    outbox.put(MESSAGE)
    outbox.end(DeadlineError("late"))
    assert await outbox.next() is MESSAGE
    with pytest.raises(DeadlineError):
        await outbox.next()


async def test_only_the_first_end_counts():
    outbox = Outbox(4, lambda: None)
    outbox.end()
    outbox.end(DeadlineError("late"))
    assert await outbox.next() is None


async def test_a_waiting_reader_is_woken_by_a_message_and_by_the_end():
    outbox = Outbox(4, lambda: None)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        first = group.create_task(outbox.next())
        await asyncio.sleep(0)
        outbox.put(MESSAGE)
        assert await first is MESSAGE
        second = group.create_task(outbox.next())
        await asyncio.sleep(0)
        outbox.end()
        assert await second is None


async def test_room_is_told_only_when_a_full_outbox_is_read():
    told = []
    outbox = Outbox(2, lambda: told.append(outbox.is_full()))
    outbox.put(MESSAGE)
    await outbox.next()
    assert told == []
    outbox.put(MESSAGE)
    outbox.put(MESSAGE)
    assert outbox.is_full()
    await outbox.next()
    assert told == [False]
