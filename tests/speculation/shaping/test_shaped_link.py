import asyncio
import dataclasses
import math

import pytest

from speculation.errors import HandshakeError, InvalidRequestError, LinkError
from speculation.links.base import LinkStatistics
from speculation.protocol.messages import (
    Cancel,
    CloudMessage,
    DeviceMessage,
    Draft,
    Finished,
    FinishReason,
    Node,
    Verdict,
    VerdictKind,
)
from speculation.shaping import profiles, virtual_time
from speculation.shaping.link import ShapedConnector, shaped
from speculation.wire.codec import encoded_size

# 60 ms a round trip in parts that binary fractions hold exactly, and no limit on the rate.
DELAYS = dataclasses.replace(
    profiles.network("none"), name="delays", uplink_delay_s=34 / 1024, downlink_delay_s=26 / 1024, overhead_bytes=0
)
RATES = dataclasses.replace(DELAYS, uplink_rate_bytes_per_s=1024, downlink_rate_bytes_per_s=4096, overhead_bytes=88)
ROUND_TRIP_S = 60 / 1024


def draft(number: int) -> Draft:
    return Draft((Node(number, 0, 7, root_position=5),), known=5)


def verdict(start: int) -> Verdict:
    return Verdict(start, 0, 0, 42, VerdictKind.DECODED)


def now_s() -> float:
    return asyncio.get_running_loop().time()


class FarEnd:
    """The inner link as a test sees it: what arrived and when, and a place to answer from."""

    def __init__(self) -> None:
        self.statistics = LinkStatistics()
        self.arrived: list[tuple[float, DeviceMessage]] = []
        self.answers: asyncio.Queue[CloudMessage | Exception | None] = asyncio.Queue()
        self.send_error: Exception | None = None
        self.echoes = False
        self.closed_at_s: float | None = None

    async def send(self, message: DeviceMessage) -> None:
        if self.send_error is not None:
            raise self.send_error
        self.arrived.append((now_s(), message))
        if self.echoes:
            self.answers.put_nowait(verdict(len(self.arrived)))

    async def receive(self) -> CloudMessage | None:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        if self.closed_at_s is None:
            self.closed_at_s = now_s()


class FarEnds:
    """The inner connector: hands out far ends, or refuses."""

    def __init__(self) -> None:
        self.links: list[FarEnd] = []
        self.error: Exception | None = None
        self.closings = 0

    async def connect(self) -> FarEnd:
        if self.error is not None:
            raise self.error
        self.links.append(FarEnd())
        return self.links[-1]

    async def aclose(self) -> None:
        self.closings += 1


async def begin(link, far_end):
    """The first message of a stream, well before anything is timed."""
    await link.send(draft(99))
    await asyncio.sleep(1)
    far_end.arrived.clear()


def with_link(scenario, profile=DELAYS, seed=0):
    """Runs ``scenario(link, far_end)`` on a stream that has begun, in virtual time."""

    async def main():
        far_ends = FarEnds()
        async with ShapedConnector(far_ends, profile, seed) as connector:
            link = await connector.connect()
            await begin(link, far_ends.links[0])
            return await scenario(link, far_ends.links[0])

    return virtual_time.run(main())


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


def test_an_orderly_end_comes_behind_the_last_message_and_stays():
    finished = Finished(FinishReason.LENGTH)

    async def scenario(link, far_end):
        began_s = now_s()
        far_end.answers.put_nowait(finished)
        far_end.answers.put_nowait(None)
        assert [await link.receive(), await link.receive(), await link.receive()] == [finished, None, None]
        assert now_s() - began_s == 26 / 1024

    with_link(scenario)


@pytest.mark.parametrize("error", [LinkError("gone"), HandshakeError("another pair")])
def test_a_refusal_of_the_far_end_is_received_as_late_as_a_message(error):
    async def scenario(link, far_end):
        began_s = now_s()
        far_end.answers.put_nowait(error)
        with pytest.raises(type(error), match=str(error)):
            await link.receive()
        assert now_s() - began_s == 26 / 1024

    with_link(scenario)


def test_a_failed_send_is_told_to_sends_a_round_trip_later():
    async def scenario(link, far_end):
        far_end.send_error = LinkError("broken pipe")
        await link.send(draft(1))
        await asyncio.sleep(59 / 1024)
        await link.send(draft(2))
        await asyncio.sleep(1 / 1024)
        with pytest.raises(LinkError, match="broken pipe"):
            await link.send(draft(3))
        far_end.send_error = None
        await asyncio.sleep(1)
        assert far_end.arrived == []

    with_link(scenario)


def test_a_message_that_is_refused_before_it_is_sent_is_told_to_the_receiver_too():
    async def scenario(link, far_end):
        far_end.send_error = InvalidRequestError("too long")
        began_s = now_s()
        await link.send(draft(1))
        with pytest.raises(InvalidRequestError, match="too long"):
            await link.receive()
        assert now_s() - began_s == ROUND_TRIP_S

    with_link(scenario)


def test_a_verdict_under_way_when_the_stream_breaks_is_still_received():
    async def scenario(link, far_end):
        far_end.send_error = LinkError("gone")
        await link.send(draft(1))
        await asyncio.sleep(34 / 1024)
        far_end.answers.put_nowait(verdict(1))
        far_end.answers.put_nowait(LinkError("gone"))
        assert await link.receive() == verdict(1)
        with pytest.raises(LinkError, match="gone"):
            await link.receive()

    with_link(scenario)


def test_nothing_is_received_from_the_far_end_before_the_first_message_has_reached_it():
    class Unopened(FarEnd):
        async def receive(self) -> CloudMessage | None:
            if not self.arrived:
                raise LinkError("nothing was opened")
            return await super().receive()

    async def main():
        far_ends = FarEnds()
        async with ShapedConnector(far_ends, DELAYS) as connector:
            link = await connector.connect()
            far_ends.links[0].__class__ = Unopened
            far_ends.links[0].echoes = True
            async with asyncio.TaskGroup() as tasks:
                receiving = tasks.create_task(link.receive())
                await asyncio.sleep(0.5)
                await link.send(draft(1))
            return receiving.result(), now_s()

    answer, time_s = virtual_time.run(main())
    assert answer == verdict(1)
    assert time_s == 0.5 + 2 * ROUND_TRIP_S


def test_a_connector_has_one_owner():
    async def main():
        async with ShapedConnector(FarEnds(), DELAYS) as connector:
            with pytest.raises(RuntimeError, match="one owner"):
                await connector.__aenter__()

    virtual_time.run(main())


def test_a_receive_that_is_cancelled_loses_nothing():
    async def scenario(link, far_end):
        far_end.answers.put_nowait(verdict(1))
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(8 / 1024):
                    await link.receive()
        assert await link.receive() == verdict(1)

    with_link(scenario)


def test_closing_is_at_once_here_and_comes_behind_what_was_sent_there():
    async def scenario(link, far_end):
        began_s = now_s()
        await link.send(Cancel())
        await link.aclose()
        await link.aclose()
        assert now_s() == began_s
        with pytest.raises(LinkError, match="closed"):
            await link.send(draft(1))
        with pytest.raises(LinkError, match="closed"):
            await link.receive()
        assert far_end.closed_at_s is None
        await asyncio.sleep(1)
        assert far_end.arrived == [(began_s + 34 / 1024, Cancel())]
        assert far_end.closed_at_s == began_s + 34 / 1024

    with_link(scenario)


def test_closing_wakes_a_receive_that_waits():
    async def scenario(link, far_end):
        far_end.answers.put_nowait(verdict(1))
        began_s = now_s()
        async with asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(receive_error(link))
            await asyncio.sleep(1 / 1024)
            await link.aclose()
        assert now_s() == began_s + 1 / 1024
        return isinstance(receiving.result(), LinkError)

    async def receive_error(link):
        with pytest.raises(LinkError) as caught:
            await link.receive()
        return caught.value

    assert with_link(scenario)


def test_only_a_cold_connection_costs_a_round_trip():
    async def main():
        far_ends = FarEnds()
        async with ShapedConnector(far_ends, DELAYS) as connector:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(3):
                    tasks.create_task(connector.connect())
            assert now_s() == ROUND_TRIP_S
            link = await connector.connect()
            assert now_s() == ROUND_TRIP_S
            await begin(link, far_ends.links[3])
            far_ends.links[3].answers.put_nowait(LinkError("lost"))
            with pytest.raises(LinkError):
                await link.receive()
            began_s = now_s()
            await connector.connect()
            assert now_s() - began_s == ROUND_TRIP_S

    virtual_time.run(main())


def test_a_verifier_that_cannot_be_reached_is_told_after_the_round_trip_each_time():
    async def main():
        far_ends = FarEnds()
        far_ends.error = LinkError("refused")
        async with ShapedConnector(far_ends, DELAYS) as connector:
            for attempt in (1, 2):
                with pytest.raises(LinkError, match="refused"):
                    await connector.connect()
                assert now_s() == attempt * ROUND_TRIP_S

    virtual_time.run(main())


def test_leaving_the_connector_closes_all_it_owns_at_once():
    async def main():
        far_ends = FarEnds()
        async with ShapedConnector(far_ends, DELAYS) as connector:
            links = [await connector.connect() for _ in range(3)]
            await links[0].send(draft(1))
        assert now_s() == ROUND_TRIP_S
        assert [far_end.closed_at_s for far_end in far_ends.links] == [ROUND_TRIP_S] * 3
        assert far_ends.closings == 1
        assert len(asyncio.all_tasks()) == 1
        with pytest.raises(LinkError):
            await links[0].receive()
        with pytest.raises(LinkError, match="async with"):
            await connector.connect()

    virtual_time.run(main())


def test_a_connector_that_was_closed_by_its_user_can_still_be_left():
    async def main():
        far_ends = FarEnds()
        async with ShapedConnector(far_ends, DELAYS) as connector:
            await connector.connect()
            await connector.aclose()
        assert far_ends.closings == 1

    virtual_time.run(main())


def test_an_error_inside_the_connectors_body_comes_out_as_it_is():
    async def main():
        async with ShapedConnector(FarEnds(), DELAYS) as connector:
            await connector.connect()
            raise InvalidRequestError("no")

    with pytest.raises(InvalidRequestError):
        virtual_time.run(main())


def test_a_connector_that_was_not_entered_says_so():
    async def main():
        with pytest.raises(LinkError, match="async with"):
            await ShapedConnector(FarEnds(), DELAYS).connect()

    virtual_time.run(main())


def test_the_profile_none_leaves_the_connector_as_it_is_and_closes_it():
    async def main():
        far_ends = FarEnds()
        async with shaped(far_ends, profiles.network("none")) as connector:
            assert connector is far_ends
        assert far_ends.closings == 1
        async with shaped(far_ends, DELAYS) as connector:
            assert isinstance(connector, ShapedConnector)

    virtual_time.run(main())


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
