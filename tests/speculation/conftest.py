from collections.abc import Iterator

import pytest

from speculation import choice
from speculation.compiled import use_compiled


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def way_of_choosing(request: pytest.FixtureRequest) -> Iterator[str]:
    """The choice both ways: as NumPy makes it, and as machine code does."""
    before = choice._rule
    choice.choose_by(None)
    if request.param == "compiled" and not use_compiled():
        pytest.skip("Numba is not installed: outrider[compiled]")
    yield request.param
    choice.choose_by(before)
