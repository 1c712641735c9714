"""How a setting names verifiers."""

from __future__ import annotations

import pytest

from speculation.errors import ConfigurationError
from speculation.links.targets import is_here, parse_verifiers


@pytest.mark.parametrize(
    ("text", "kind", "targets", "hosts"),
    [
        ("127.0.0.1:50051", "list", ("127.0.0.1:50051",), ["127.0.0.1"]),
        ("[::1]:50051", "list", ("[::1]:50051",), ["::1"]),
        ("a:1, b.example:2", "list", ("a:1", "b.example:2"), ["a", "b.example"]),
        ("dns:///verifiers:50051", "dns", ("verifiers:50051",), ["verifiers"]),
        ("http://head:8000/v1/verifiers", "http", (), ["head"]),
        ("https://head.example/v1/verifiers", "https", (), ["head.example"]),
    ],
)
def test_a_verifier_is_named_in_one_of_these_ways(text, kind, targets, hosts):
    verifiers = parse_verifiers(text)
    assert (verifiers.kind, verifiers.targets, verifiers.hosts) == (kind, targets, hosts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nowhere",
        "host:0",
        "host:70000",
        ":5",
        "a:1,",
        "a:1,a:1",
        "a b:1",
        "a..b:1",
        "a\0b:1",
        f"{'a' * 64}:1",
        "dns:///a..b:1",
        "http://a..b/v1/verifiers",
        "ftp://head/v1/verifiers",
        "dns:///verifiers",
        "dns:///a:1,b:2",
        "http://head",
        "http://head/",
        "http:///v1/verifiers",
        "http://name@head/v1/verifiers",
        "http://head/v1/verifiers?key=word",
        "http://head:0/v1/verifiers",
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(text):
    with pytest.raises(ConfigurationError, match=r"verifier must be host:port, such as 127\.0\.0\.1:50051, several"):
        parse_verifiers(text)


@pytest.mark.parametrize(
    ("target", "is_local"),
    [
        ("127.0.0.1:1", True),
        ("127.3.2.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("10.0.0.1:1", False),
        ("[fe80::1]:1", False),
        ("verifier:1", False),
        ("localhost.example:1", False),
    ],
)
def test_a_target_of_this_machine_is_known_by_its_name(target, is_local):
    assert is_here(target) is is_local
