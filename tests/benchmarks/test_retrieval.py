from __future__ import annotations

import pytest

from benchmarks.retrieval import overlap
from benchmarks.retrieval_questions import pages

DOCUMENT = [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ([2, 3, 4, 5, 6], (1.0, 5)),
        ([9, 2, 3, 4, 5], (0.5, 4)),
        ([1, 2, 3, 9, 9, 9, 9], (0.0, 3)),
        ([9, 9], (0.0, 0)),
        ([], (0.0, 0)),
    ],
)
def test_how_much_of_an_answer_is_in_a_document(answer, wanted):
    assert overlap(answer, DOCUMENT) == wanted


def test_a_question_begins_an_entry_of_its_document_and_the_answer_follows_there():
    held_out, others = pages(3)
    assert len(held_out) >= 5
    assert len(others) == 3
    for page in (*held_out, *others):
        for question in page.questions:
            entry = page.text[question.start : question.end]
            assert " ".join(entry.split()).startswith(" ".join(question.prompt.split()))
            assert len(entry.split()) > len(question.prompt.split())
