"""How a shaped link breaks and is closed, and what its connector owns."""

import asyncio

import pytest

from speculation.errors import HandshakeError, InvalidRequestError, LinkError
from speculation.protocol.messages import (
    Cancel,
    CloudMessage,
    Finished,
    FinishReason,
)
from speculation.shaping import profiles, virtual_time
from speculation.shaping.link import ShapedConnector, shaped
from tests.speculation.shaping.far_end import (
    DELAYS,
    ROUND_TRIP_S,
    FarEnd,
    FarEnds,
    begin,
    draft,
    now_s,
    verdict,
    with_link,
)


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
