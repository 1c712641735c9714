"""What a body of JSON may be; how answers begin is told by the tests of the routes."""

from __future__ import annotations

import pytest

from device_agent.answers import parse
from speculation.errors import InvalidRequestError


def test_json_that_is_no_json_is_refused_by_name():
    with pytest.raises(InvalidRequestError, match="byte 1 is no part"):
        parse(b'"\xff"')
    with pytest.raises(InvalidRequestError, match="Infinity"):
        parse(b"-Infinity")
