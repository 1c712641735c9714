"""Prompts over earlier results: what is filled in, and what is not taken from a client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.tasks.template import MAX_CHARACTERS, MAX_FILTERS, MAX_TAGS, Template
from speculation.errors import InvalidRequestError

RESULTS = {"a": "one two three\nfour five", "b": " Bee "}


@pytest.mark.parametrize(
    ("source", "names", "filled"),
    [
        ("no results\r\n{ } }} %}", (), "no results\r\n{ } }} %}"),
        ("<{{ a }}|{{b}}|{{ a }}>\n", ("a", "b"), "<one two three\nfour five| Bee |one two three\nfour five>\n"),
        ("{{ b | trim | upper }}{{ b|lower }}", ("b",), "BEE bee "),
        (
            "{{ a | words(2) }}; {{ a | lines(1) }}; {{ a | words(99) }}",
            ("a",),
            "one two; one two three; one two three four five",
        ),
        ("{{ '{{' }} {% raw %}{{ a }}{% endraw %}{# left out #}", (), "{{ {{ a }}"),
    ],
)
def test_a_prompt_is_filled_with_results(source, names, filled):
    template = Template.of(source)
    assert (template.names, template.fill(RESULTS, 1000)) == (names, filled)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        pytest.param("{{ a | words(" + 5000 * "1" + ") }}", "a number in it is too long", id="a number of 5000 digits"),
        ("{{ '\\ud800' }}{{ a }}", "not valid Unicode"),
        ("{{ '\\udfff' | trim }}{{ a }}", "not valid Unicode"),
        ("{{ '\\x' }}", "no template"),
    ],
)
def test_what_python_cannot_read_or_write_is_a_fault_of_the_prompt(source, fault):
    with pytest.raises(InvalidRequestError, match=fault) as caught:
        Template.of(source)
    assert caught.value.parameter == "prompt"


def test_what_a_result_holds_is_no_template():
    assert Template.of("{{ a }}").fill({"a": "{{ b }}{% for x in y %}"}, 1000) == "{{ b }}{% for x in y %}"


@pytest.mark.parametrize(
    "source",
    [
        "{{ a.upper() }}",
        "{{ a.__class__.__mro__ }}",
        "{{ a['x'] }}",
        "{{ a[0] }}",
        "{{ a() }}",
        "{{ a * 1000000000 }}",
        "{{ a ~ a }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ a + b }}",
        "{{ a if b }}",
        "{{ a is defined }}",
        "{{ self }}",
        "{{ loop }}",
        "{{ true }}",
        "{{ 7 }}",
        "{{ [a] }}",
        "{{ {} }}",
        "{% for x in range(10 ** 10) %}{{ x }}{% endfor %}",
        "{% if a %}{{ b }}{% endif %}",
        "{% set x = a %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{% macro m() %}{% endmacro %}",
        "{% filter upper %}{{ a }}{% endfilter %}",
        "{% block x %}{% endblock %}",
        "{% do a %}",
        "{{ a | center(1000000000) }}",
        "{{ a | attr('__class__') }}",
        "{{ a | replace('o', 'oooo') }}",
        "{{ a | words }}",
        "{{ a | words(0) }}",
        "{{ a | words(10001) }}",
        "{{ a | words(true) }}",
        "{{ a | words(b) }}",
        "{{ a | words(count=3) }}",
        "{{ a | words(*b) }}",
        "{{ a | trim('x') }}",
        "{{ a" + " | trim" * (MAX_FILTERS + 1) + " }}",
        "{{ a",
        "{{ }}",
        "{% raw %} {{ a }}",
        "{{ " + "(" * 3000 + " }}",
        "{{ a }}" * (MAX_TAGS + 1),
        "{{ a }}" + "x" * MAX_CHARACTERS,
    ],
)
def test_anything_else_of_the_language_is_refused_with_the_field(source):
    with pytest.raises(InvalidRequestError) as refused:
        Template.of(source)
    assert refused.value.parameter == "prompt"


def test_a_refusal_says_what_would_be_right():
    with pytest.raises(InvalidRequestError, match=r"line 2: Getattr is not taken here; text, \{\{ name \}\}"):
        Template.of("x\n{{ a.b }}")
    with pytest.raises(InvalidRequestError, match="unknown filter 'wrds'; known: lines, lower, trim, upper, words"):
        Template.of("{{ a | wrds(3) }}")
    with pytest.raises(InvalidRequestError, match=r"the filter words takes a number from 1 to 10000, as in words\(50\)"):
        Template.of("{{ a | words }}")


def test_a_prompt_that_becomes_too_long_is_refused_and_not_built():
    template = Template.of("{{ a }}" * MAX_TAGS)
    with pytest.raises(InvalidRequestError, match=r"longer than the 1000 bytes that this agent takes; .* words"):
        template.fill({"a": "é" * 300}, 1000)
    assert len(Template.of("{{ a }}").fill({"a": "é" * 500}, 1000)) == 500


@given(st.text(alphabet="ab{}%#|'\"()., \n-+words"))
def test_any_text_is_a_prompt_or_is_refused(source):
    try:
        template = Template.of(source)
    except InvalidRequestError:
        return
    assert isinstance(template.fill(dict.fromkeys(template.names, "x"), 10**6), str)
