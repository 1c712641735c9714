"""A network that becomes another one while messages are under way."""

import asyncio
import dataclasses

import pytest

from speculation.errors import LinkError
from speculation.parameters import SamplingParameters
from speculation.protocol.cover import Cover
from speculation.protocol.messages import Open, Opened, PairIdentity
from speculation.shaping import profiles, virtual_time
from speculation.shaping.link import ShapedConnector
from tests.speculation.shaping.far_end import DELAYS, FarEnd, FarEnds, begin, draft, now_s, verdict

NOTHING = profiles.network("none")
SLOW = dataclasses.replace(DELAYS, name="slow", uplink_delay_s=0.5, downlink_delay_s=0.25)
UP_S, DOWN_S = DELAYS.uplink_delay_s, DELAYS.downlink_delay_s


def with_link(scenario, profile=DELAYS):
    """Runs ``scenario(connector, link, far_end)`` on a stream that has begun, in virtual time."""

    async def main():
        far_ends = FarEnds()
        async with ShapedConnector(far_ends, profile) as connector:
            link = await connector.connect()
            await begin(link, far_ends.links[0])
            return await scenario(connector, link, far_ends.links[0])

    return virtual_time.run(main())


def arrivals_s(far_end, began_s):
    return [at_s - began_s for at_s, _ in far_end.arrived]


def test_what_is_under_way_arrives_as_it_would_have_and_the_next_message_by_the_new_network():
    async def scenario(connector, link, far_end):
        began_s = now_s()
        await link.send(draft(1))
        connector.reshape(SLOW)
        await link.send(draft(2))
        await asyncio.sleep(1)
        return arrivals_s(far_end, began_s)

    assert with_link(scenario) == [UP_S, 0.5]


def test_nothing_overtakes_on_a_network_that_became_faster():
    async def scenario(connector, link, far_end):
        began_s = now_s()
        await link.send(draft(1))
        connector.reshape(DELAYS)
        await link.send(draft(2))
        await asyncio.sleep(1)
        await link.send(draft(3))
        await asyncio.sleep(1)
        return arrivals_s(far_end, began_s), [message for _, message in far_end.arrived]

    arrived_s, messages = with_link(scenario, SLOW)
    assert arrived_s == [0.5, 0.5, 1 + UP_S]
    assert messages == [draft(1), draft(2), draft(3)]


def test_the_queue_of_a_slow_network_is_sent_at_its_rate_before_what_comes_behind_it():
    narrow = dataclasses.replace(DELAYS, uplink_rate_bytes_per_s=200, overhead_bytes=100, uplink_delay_s=0, uplink_jitter_s=0)

    async def scenario(connector, link, far_end):
        began_s = now_s()
        await link.send(draft(1))
        connector.reshape(dataclasses.replace(DELAYS, uplink_delay_s=0.125, name="fast"))
        await link.send(draft(2))
        await asyncio.sleep(3)
        return arrivals_s(far_end, began_s)

    first_s, second_s = with_link(scenario, narrow)
    assert first_s > 0.5  # a hundred bytes and more
    assert second_s == pytest.approx(first_s + 0.125)


def test_the_same_on_the_way_down():
    narrow = dataclasses.replace(DELAYS, name="narrow", downlink_rate_bytes_per_s=200, overhead_bytes=100, downlink_delay_s=0)

    async def scenario(connector, link, far_end):
        began_s = now_s()
        far_end.answers.put_nowait(verdict(1))
        await asyncio.sleep(0)
        connector.reshape(dataclasses.replace(DELAYS, downlink_delay_s=0.125, name="fast"))
        far_end.answers.put_nowait(verdict(2))
        found = []
        for _ in range(2):
            await link.receive()
            found.append(now_s() - began_s)
        return found

    first_s, second_s = with_link(scenario, narrow)
    assert first_s > 0.5
    assert second_s == pytest.approx(first_s + 0.125)


@pytest.mark.parametrize("pad_bytes", [0, 1024])
def test_what_a_stream_is_padded_to_is_known_though_it_was_opened_without_a_network(pad_bytes):
    """Both ways: at a byte each 1/1024 s a padded message takes a second and more."""
    cover = Cover(pad_bytes)
    at_a_byte = dataclasses.replace(DELAYS, uplink_rate_bytes_per_s=1024, downlink_rate_bytes_per_s=1024)

    async def scenario(connector, link, far_end):
        await link.send(Open("s", 1, PairIdentity("t", "p", "f"), (1,), 1, SamplingParameters(), 5, cover=cover))
        far_end.answers.put_nowait(Opened("s", 8, "f", True, cover=cover))
        await link.receive()
        connector.reshape(at_a_byte)
        far_end.arrived.clear()
        began_s = now_s()
        await link.send(draft(1))
        far_end.answers.put_nowait(verdict(1))
        await link.receive()
        down_s = now_s() - began_s
        await asyncio.sleep(3)
        return arrivals_s(far_end, began_s)[0] - UP_S >= 1, down_s - DOWN_S >= 1

    is_padded = pad_bytes > 0
    assert with_link(scenario, NOTHING) == (is_padded, is_padded)


def test_an_answer_that_is_awaited_is_held_back_once_a_network_is_played():
    async def scenario(connector, link, far_end):
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(link.receive())
            await asyncio.sleep(1)
            connector.reshape(DELAYS)
            began_s = now_s()
            far_end.answers.put_nowait(verdict(1))
            far_end.answers.put_nowait(verdict(2))
            assert await waiting == verdict(1)
        first_s = now_s() - began_s
        assert await link.receive() == verdict(2)
        return first_s, now_s() - began_s

    assert with_link(scenario, NOTHING) == (DOWN_S, DOWN_S)


class OneReaderEnd(FarEnd):
    """Refuses a second caller of ``receive`` beside the first, as a stream of gRPC does."""

    is_read = False

    async def receive(self):
        assert not self.is_read, "two receive at once"
        self.is_read = True
        try:
            return await super().receive()
        finally:
            self.is_read = False


def test_nobody_else_receives_on_the_inner_stream_while_an_answer_is_awaited(monkeypatch):
    monkeypatch.setattr("tests.speculation.shaping.far_end.FarEnd", OneReaderEnd)

    async def scenario(connector, link, far_end):
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(link.receive())
            await asyncio.sleep(1)
            connector.reshape(DELAYS)
            await asyncio.sleep(1)
            far_end.answers.put_nowait(verdict(1))
        await asyncio.sleep(1)
        return waiting.result(), far_end.is_read

    assert with_link(scenario, NOTHING) == (verdict(1), True)


def test_a_stream_from_before_any_network_goes_straight_through_and_then_by_the_network():
    async def scenario(connector, link, far_end):
        far_end.echoes = True
        began_s = now_s()
        await link.send(draft(1))
        assert await link.receive() == verdict(1)
        straight_s = now_s() - began_s
        connector.reshape(DELAYS)
        began_s = now_s()
        await link.send(draft(2))
        assert await link.receive() == verdict(2)
        shaped_s = now_s() - began_s
        connector.reshape(NOTHING)
        began_s = now_s()
        await link.send(draft(3))
        assert await link.receive() == verdict(3)
        return straight_s, shaped_s, now_s() - began_s

    assert with_link(scenario, NOTHING) == (0, UP_S + DOWN_S, 0)


def test_a_receive_that_is_cancelled_around_the_change_loses_nothing():
    async def scenario(connector, link, far_end):
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(link.receive())
            await asyncio.sleep(0)
            waiting.cancel()
            connector.reshape(DELAYS)
            far_end.answers.put_nowait(verdict(1))
        assert waiting.cancelled()
        return await link.receive()

    assert with_link(scenario, NOTHING) == verdict(1)


def test_a_failure_reaches_who_waited_before_the_change_as_late_as_a_message_would():
    async def scenario(connector, link, far_end):
        async def wait():
            with pytest.raises(LinkError, match="gone"):
                await link.receive()
            return now_s()

        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(wait())
            await asyncio.sleep(0)
            connector.reshape(DELAYS)
            began_s = now_s()
            far_end.answers.put_nowait(LinkError("gone"))
        return waiting.result() - began_s

    assert with_link(scenario, NOTHING) == DOWN_S


def test_a_failure_without_a_network_is_raised_at_once_as_it_is():
    async def scenario(connector, link, far_end):
        far_end.answers.put_nowait(LinkError("gone"))
        with pytest.raises(LinkError, match="gone"):
            await link.receive()
        far_end.send_error = LinkError("gone, too")
        with pytest.raises(LinkError, match="gone, too"):
            await link.send(draft(1))
        return now_s()

    assert with_link(scenario, NOTHING) == 1  # what ``begin`` waits


@pytest.mark.parametrize("is_changed", [False, True])
def test_closing_a_stream_from_before_any_network_closes_the_inner_one(is_changed):
    async def scenario(connector, link, far_end):
        if is_changed:
            connector.reshape(DELAYS)
        began_s = now_s()
        await link.aclose()
        await link.aclose()
        await asyncio.sleep(1)
        return far_end.closed_at_s - began_s

    assert with_link(scenario, NOTHING) == (UP_S if is_changed else 0)


def test_leaving_the_connector_closes_streams_from_before_any_network():
    async def main():
        far_ends = FarEnds()
        async with ShapedConnector(far_ends, NOTHING) as connector:
            await connector.connect()
        return far_ends.links[0].closed_at_s

    assert virtual_time.run(main()) == 0


def test_new_streams_use_the_connection_that_was_made_without_a_network():
    async def main():
        async with ShapedConnector(FarEnds(), NOTHING) as connector:
            await connector.connect()
            connector.reshape(SLOW)
            await connector.connect()
            return now_s()

    assert virtual_time.run(main()) == 0


def test_a_network_that_begins_in_the_middle_finds_its_radio_awake():
    sleepy = dataclasses.replace(DELAYS, name="sleepy", idle_after_s=5.0, idle_promotion_s=1.0)

    async def scenario(connector, link, far_end):
        await asyncio.sleep(100)
        connector.reshape(sleepy)
        began_s = now_s()
        await link.send(draft(1))
        await asyncio.sleep(20)
        await link.send(draft(2))
        await asyncio.sleep(5)
        return arrivals_s(far_end, began_s)

    assert with_link(scenario, NOTHING) == pytest.approx([UP_S, 20 + 1 + UP_S])


def test_the_statistics_tell_when_the_last_message_is_there():
    async def scenario(connector, link, far_end):
        straight = link.statistics.arrives_s
        connector.reshape(DELAYS)
        await link.send(draft(1))
        return straight, link.statistics.arrives_s - now_s()

    assert with_link(scenario, NOTHING) == (None, UP_S)


def test_a_network_may_be_changed_before_the_connector_is_entered_and_after_it_was_left():
    async def main():
        connector = ShapedConnector(FarEnds(), NOTHING)
        connector.reshape(DELAYS)
        async with connector:
            await connector.connect()
            took_s = now_s()
        connector.reshape(SLOW)
        return took_s

    assert virtual_time.run(main()) == UP_S + DOWN_S
