"""A server for all tests of a module, and an engine over it by each route."""

import pytest

from speculation.engines.random import RandomEngine
from speculation.engines.remote_routes import ROUTES
from tests.speculation.engines.remote.scene import CONTEXT, VOCABULARY, connected
from tests.support.served_model import ServedModel, serving


@pytest.fixture(scope="module")
def running():
    """A server for all tests of this module, and its address."""
    served = ServedModel(RandomEngine(VOCABULARY, CONTEXT + 1, seed=3), CONTEXT + 1)
    with serving(served) as url:
        yield served, url


@pytest.fixture
def served(running):
    """The server as it was when it started."""
    running[0].__init__(RandomEngine(VOCABULARY, CONTEXT + 1, seed=3), CONTEXT + 1)
    vars(running[0]).pop("_draw", None)
    return running[0]


@pytest.fixture
def url(served, running):
    return running[1]


@pytest.fixture(params=ROUTES)
def route(request):
    return request.param


@pytest.fixture
def engine(url, route):
    return connected(url, route, num_logprobs=5)
