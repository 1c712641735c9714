"""Errors that leave the process they were raised in."""

from __future__ import annotations

import copy

import pytest

from speculation.errors import STATUS, CapacityError, InvalidRequestError, LinkError, UnknownNameError

ERRORS = [
    UnknownNameError("variant", "q9", ["q4", "fp32"], "draft"),
    InvalidRequestError("too long", "prompt"),
    CapacityError("full", 2.0),
    LinkError("gone"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_where_it_is_sent_to(error):
    """A copy is made of what a process would send to another."""
    error.can_go_elsewhere = True
    there = copy.copy(error)
    assert there is not error
    assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("leaf", STATUS, ids=lambda leaf: leaf.__name__)
def test_every_leaf_can_be_sent(leaf):
    error = leaf.__new__(leaf, "what went wrong")
    assert str(copy.copy(error)) == "what went wrong"
