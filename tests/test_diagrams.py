"""The diagrams of the protocol's page show what the two sessions do."""

import pytest

from docs.diagrams import PAGE, TITLES, Drawing, placed


def test_the_diagrams_on_the_page_are_those_that_the_sessions_draw():
    page = PAGE.read_text("utf-8")
    assert placed(page) == page, "run: python -m docs.diagrams"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("accept", "Verdict ACCEPT, start 5, count 3"),
        ("revoke_and_correct", "final 21 22 23, withdrawn 99 98 97"),
        ("decoded", "pass without drafts"),
        ("late", "2 final already, compared and not run"),
        ("resume", "the older stream ends with ABORTED"),
        ("elsewhere", "D->>V2: Open, attempt 2, 8 tokens are final"),
    ],
)
def test_a_diagram_shows_what_it_is_for(name, shown):
    assert name in TITLES
    assert shown in "\n".join(Drawing(name).lines())
