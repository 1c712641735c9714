"""Tenants, their keys and what they may use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.errors import MAX_RETRY_AFTER_S, CapacityError
from speculation.links.status import status_from
from speculation.tenants import Account, Accounts, Keyring, Limits, Tenant, TokenBucket, bearer, digest_of, is_key

KEY, OTHER = "sesame-sesame-sesame", "poppy-poppy-poppy-poppy"
ALICE, BOB = Tenant("alice"), Tenant("bob")
KEYRING = Keyring({digest_of(KEY): ALICE, digest_of(OTHER): BOB})


@pytest.mark.parametrize(
    ("given", "tenant"),
    [
        (bearer(KEY), ALICE),
        (bearer(OTHER), BOB),
        (f"bearer  {KEY}", ALICE),
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        (KEY, None),
        (f"Basic {KEY}", None),
        (bearer(KEY[:-1]), None),
        (bearer(KEY + "x"), None),
        (bearer("\udcff"), None),
        (bearer("schlüssel"), None),
    ],
)
def test_a_caller_is_who_has_the_key(given, tenant):
    assert KEYRING.tenant_of(given) == tenant


def test_every_key_is_compared_whichever_it_is(monkeypatch):
    compared = []

    def compare(one, other):
        compared.append(one)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    for key in (KEY, OTHER, "nobody's"):
        KEYRING.tenant_of(bearer(key))
    assert compared == [digest_of(KEY), digest_of(OTHER)] * 3


def test_a_keyring_holds_no_key():
    assert KEY not in str(vars(KEYRING))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [(KEY, True), ("", False), ("two words", False), (f" {KEY}", False), ("a\x00b", False), ("schlüssel", False)],
)
def test_a_key_is_one_word_that_a_header_carries(text, is_one):
    assert is_key(text) is is_one


uses = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40)), max_size=60)


@given(st.floats(0.1, 100), st.floats(0.01, 20), uses)
def test_whoever_waits_until_ready_uses_no_more_than_the_rate_and_the_burst(rate, burst_s, steps):
    bucket, now_s, used, last = TokenBucket(rate, burst_s), 0.0, 0, 0
    for pause_s, amount in steps:
        now_s = max(now_s + pause_s, bucket.ready_s)
        bucket.take(amount, now_s)
        used, last = used + amount, amount
        assert used - last <= rate * (now_s + burst_s) * (1 + 1e-9) + 1e-6


@given(st.floats(0.1, 100), st.floats(0.01, 20), st.integers(1, 1000))
def test_who_waits_for_the_time_that_is_told_is_ready_then(rate, burst_s, amount):
    bucket = TokenBucket(rate, burst_s)
    bucket.take(amount, 3.0)
    assert bucket.ready_s <= max(0.0, 3.0 + amount / rate - burst_s)


def test_a_bucket_by_hand():
    bucket = TokenBucket(rate_per_s=4, burst_s=2)  # eight at once
    bucket.take(8, now_s=100)
    assert bucket.ready_s == 100
    bucket.take(4, now_s=100)
    assert bucket.ready_s == 101
    bucket.take(1, now_s=200)  # what was saved up in between is the burst, and no more
    assert bucket.ready_s == 198.25


def test_without_a_rate_nothing_is_ever_owed():
    bucket = TokenBucket(None, 1)
    bucket.take(10**12, 0)
    assert bucket.ready_s == 0


def test_a_tenant_over_a_limit_is_told_when_to_come_again():
    account = Account(Tenant("alice", Limits(max_sessions=2, tokens_per_s=10, bytes_per_s=100, burst_s=1)))
    account.check(0.0, 7.0)
    account.num_sessions = 2
    with pytest.raises(CapacityError, match="all 2 sessions of this tenant") as refused:
        account.check(0.0, 7.0)
    assert refused.value.retry_after_s == 7.0
    account.num_sessions = 1
    account.tokens.take(15, 0.0)
    with pytest.raises(CapacityError, match="over its 10 tokens a second") as refused:
        account.check(0.25, 7.0)
    assert refused.value.retry_after_s == 0.25
    account.bytes.take(300, 0.25)
    with pytest.raises(CapacityError, match="over its 100 bytes a second"):
        account.check(0.5, 7.0)
    account.check(2.25, 7.0)


@pytest.mark.parametrize("rate", [1e-6, 1e-20, 5e-324])
def test_a_rate_next_to_nothing_is_refused_with_a_delay_that_can_be_told(rate):
    """As who wants to keep a tenant out writes it: 0 is no rate."""
    account = Account(Tenant("nobody", Limits(tokens_per_s=rate)))
    account.tokens.take(1, 0.0)
    with pytest.raises(CapacityError, match="a second") as refused:
        account.check(5.0, 7.0)
    assert refused.value.retry_after_s == MAX_RETRY_AFTER_S
    assert len(status_from(refused.value).details) == 2


def test_a_tenant_has_one_account():
    accounts = Accounts()
    assert accounts.of(ALICE) is accounts.of(Tenant("alice")) is accounts.of(Tenant("alice", Limits(max_sessions=3)))
    assert accounts.of(ALICE) is not accounts.of(BOB)
