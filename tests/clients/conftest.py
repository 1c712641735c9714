"""Two agents for all clients, by the base URL that they are given."""

from __future__ import annotations

import pytest

from tests.clients.served import MESSAGES_UNTIL_LOST, running


@pytest.fixture(scope="module")
def url():
    """Of an agent that is well."""
    with running() as url:
        yield url


@pytest.fixture(scope="module")
def lost_url():
    """Of one that loses its verifier in the middle of every answer."""
    with running(messages_until_lost=MESSAGES_UNTIL_LOST) as url:
        yield url
