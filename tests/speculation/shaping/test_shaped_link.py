"""When messages arrive over a shaped link, and in which order."""

import asyncio
import dataclasses
import math

import pytest

from speculation.errors import LinkError
from speculation.shaping import profiles, virtual_time
from speculation.shaping.link import ShapedConnector
from speculation.shaping.outages import Outage
from speculation.wire.codec import encoded_size
from tests.speculation.shaping.far_end import (
    RATES,
    ROUND_TRIP_S,
    FarEnds,
    draft,
    now_s,
    verdict,
    with_link,
)


def test_a_round_trip_takes_exactly_as_long_as_the_profile_says():
    async def scenario(link, far_end):
        far_end.echoes = True
        began_s = now_s()
        await link.send(draft(1))
        assert await link.receive() == verdict(1)
        return now_s() - began_s

    assert with_link(scenario) == ROUND_TRIP_S


def test_a_round_trip_of_the_demos_network_takes_60_ms_and_the_time_of_its_bytes():
    profile = profiles.network(profiles.DEFAULT_NETWORK)
    up_s = (encoded_size(draft(1)) + 88) / (14.56e6 / 8)
    down_s = (encoded_size(verdict(1)) + 88) / (265.8e6 / 8)

    async def scenario(link, far_end):
        far_end.echoes = True
        began_s = now_s()
        await link.send(draft(1))
        await link.receive()
        return now_s() - began_s

    assert with_link(scenario, profile) == pytest.approx(0.060 + up_s + down_s, abs=1e-12)
    assert up_s + down_s < 0.0001


def test_sending_does_not_wait_and_delays_overlap():
    async def scenario(link, far_end):
        began_s = now_s()
        await link.send(draft(1))
        await asyncio.sleep(8 / 1024)
        await link.send(draft(2))
        assert now_s() == began_s + 8 / 1024
        await asyncio.sleep(1)
        assert far_end.arrived == [(began_s + 34 / 1024, draft(1)), (began_s + 42 / 1024, draft(2))]

    with_link(scenario)


def test_answers_overlap_too_even_where_nobody_is_receiving():
    async def scenario(link, far_end):
        began_s = now_s()
        far_end.answers.put_nowait(verdict(1))
        await asyncio.sleep(8 / 1024)
        far_end.answers.put_nowait(verdict(2))
        assert [await link.receive(), now_s() - began_s] == [verdict(1), 26 / 1024]
        assert [await link.receive(), now_s() - began_s] == [verdict(2), 34 / 1024]

    with_link(scenario)


def test_messages_wait_for_those_before_them_at_the_rate_of_their_direction():
    async def scenario(link, far_end):
        began_s = now_s()
        for number in (1, 2):
            await link.send(draft(number))
            far_end.answers.put_nowait(verdict(number))
        await asyncio.sleep(1)
        first, second = (88 + encoded_size(draft(number)) for number in (1, 2))
        times = [time_s - began_s for time_s, _ in far_end.arrived]
        assert times == pytest.approx([(first / 1024) + 34 / 1024, (first + second) / 1024 + 34 / 1024], abs=1e-12)

    with_link(scenario, RATES)


def test_all_links_of_a_connector_share_one_radio():
    async def main():
        far_ends = FarEnds()
        async with ShapedConnector(far_ends, RATES) as connector:
            links = [await connector.connect() for _ in range(2)]
            began_s = now_s()
            for link in links:
                await link.send(draft(1))
            await asyncio.sleep(1)
            sending_s = (88 + encoded_size(draft(1))) / 1024
            times = [far_end.arrived[0][0] - began_s for far_end in far_ends.links]
            assert times == pytest.approx([34 / 1024 + sending_s, 34 / 1024 + 2 * sending_s], abs=1e-12)

    virtual_time.run(main())


def test_a_thousand_messages_arrive_whole_and_in_order_whatever_the_jitter():
    profile = dataclasses.replace(RATES, uplink_jitter_s=30 / 1024, downlink_jitter_s=26 / 1024)

    async def scenario(link, far_end):
        far_end.echoes = True
        for number in range(1, 1001):
            await link.send(draft(number))
            await asyncio.sleep(0.001)
        answers = [await link.receive() for _ in range(1000)]
        assert [message for _, message in far_end.arrived] == [draft(number) for number in range(1, 1001)]
        assert answers == [verdict(number) for number in range(1, 1001)]

    with_link(scenario, profile, seed=5)


def test_statistics_are_the_inner_links_own():
    async def scenario(link, far_end):
        assert link.statistics is far_end.statistics

    with_link(scenario)


def test_a_network_without_limits_delivers_without_delay():
    assert math.isinf(profiles.network("none").uplink_rate_bytes_per_s)

    async def scenario(link, far_end):
        far_end.echoes = True
        began_s = now_s()
        await link.send(draft(1))
        await link.receive()
        return now_s() - began_s

    assert with_link(scenario, profiles.network("none")) == 0


def test_a_message_fits_into_a_queue_with_its_overhead():
    weight = encoded_size(draft(1)) + RATES.overhead_bytes

    def waited_s(queue_bytes):
        async def scenario(link, far_end):
            began_s = now_s()
            await link.send(draft(1))
            await link.send(draft(2))
            return now_s() - began_s

        return with_link(scenario, dataclasses.replace(RATES, uplink_queue_bytes=queue_bytes))

    assert waited_s(2 * weight) == 0
    assert waited_s(2 * weight - 1) == pytest.approx(weight / RATES.uplink_rate_bytes_per_s)


def test_who_waits_for_room_on_a_link_that_is_closed_is_told():
    async def scenario(link, far_end):
        async def refused():
            with pytest.raises(LinkError, match="closed"):
                await link.send(draft(2))
            return now_s()

        await link.send(draft(1))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(refused())
            await asyncio.sleep(0)
            await link.aclose()
        await asyncio.sleep(5)
        return waiting.result() > 1, [message for _, message in far_end.arrived]

    assert with_link(scenario, dataclasses.replace(RATES, uplink_queue_bytes=100)) == (True, [draft(1)])


def test_a_full_queue_on_the_way_down_leaves_answers_where_they_are():
    async def scenario(link, far_end):
        for number in range(20):
            far_end.answers.put_nowait(verdict(number))
        await asyncio.sleep(0.25)
        left = far_end.answers.qsize()
        found = [await link.receive() for _ in range(20)]
        return left, found

    narrow = dataclasses.replace(RATES, downlink_rate_bytes_per_s=100, downlink_queue_bytes=300)
    left, found = with_link(scenario, narrow)
    assert left >= 15
    assert found == [verdict(number) for number in range(20)]


def test_a_cold_connection_is_made_once_an_outage_is_over():
    async def connected_at_s():
        tunnel = dataclasses.replace(RATES, name="tunnel", outages=(Outage(0.0, 8.0),))
        async with ShapedConnector(FarEnds(), tunnel) as connector:
            await connector.connect()
            return now_s()

    assert virtual_time.run(connected_at_s()) == 8 + ROUND_TRIP_S
