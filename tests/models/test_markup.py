"""reStructuredText of CPython's documentation becomes the text that a person reads."""

import pytest

from models.recipes.markup import inline, to_plain_text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (":func:`asyncio.run`", "asyncio.run()"),
        (":meth:`~list.append`", "append()"),
        (":term:`coroutines <coroutine>`", "coroutines"),
        ("``x + 1``", "x + 1"),
        ("see :pep:`492`", "see PEP 492"),
        ("*key* and **must**", "key and must"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("`the site <https://example.org>`_", "the site"),
        (":c:func:`PyList_New`", "PyList_New()"),
    ],
)
def test_inline_markup_is_dropped(source, text):
    assert inline(source) == text


def test_a_heading_becomes_one_line():
    assert to_plain_text("Coroutines\n==========\n\nText.\n") == "## Coroutines\n\nText.\n"


def test_an_overlined_heading_becomes_one_line():
    assert to_plain_text("=====\nTasks\n=====\n\nText.\n") == "## Tasks\n\nText.\n"


def test_a_function_keeps_its_signature_and_body():
    source = ".. function:: gather(*aws)\n   :module: asyncio\n\n   Run *aws* concurrently.\n\n   .. versionadded:: 3.7\n"
    assert to_plain_text(source) == "gather(*aws)\n\n   Run aws concurrently.\n\n   New in version 3.7.\n"


def test_bookkeeping_is_dropped_with_its_body():
    source = ".. index::\n   single: x\n   pair: y\n\n.. _label:\n\nText.\n\n.. a comment\n   over two lines\n\nMore.\n"
    assert to_plain_text(source) == "Text.\n\nMore.\n"


def test_code_keeps_its_indentation_and_doctest_its_dots():
    source = "Example::\n\n    >>> def f():\n    ...     pass\n"
    assert to_plain_text(source) == "Example:\n\n    >>> def f():\n    ...     pass\n"
