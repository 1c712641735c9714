"""Who gets how many rows."""

from hypothesis import given
from hypothesis import strategies as st

from cloud_verifier.batching import SHARES_AT_ONCE, allot, allot_among, in_turn

demands = st.lists(st.tuples(st.integers(1, 600), st.integers(0, 50)), min_size=1, max_size=40)


def split(pairs):
    return [wanted for wanted, _ in pairs], [served for _, served in pairs]


def test_everybody_gets_all_where_all_fits():
    assert allot([1, 5, 250], [0, 0, 0], 256) == [1, 5, 250]


def test_a_long_prefill_takes_what_the_others_leave():
    assert allot([500, 1, 9], [0, 0, 0], 64) == [54, 1, 9]


def test_two_prefills_share_evenly():
    assert allot([500, 2, 500], [0, 0, 0], 66) == [32, 2, 32]


def test_a_row_that_is_left_over_goes_to_nobody_who_has_all_that_it_wants():
    assert allot([2, 4], [0, 1], 5) == [2, 3]


def test_two_prompts_are_read_one_after_the_other_too():
    assert in_turn([30, 30], [0, 1], [200, 200], [0, 1]) == [60, 0]


def test_more_sessions_than_rows_are_served_longest_ago_first():
    assert allot([1, 1, 1, 1], [9, 7, 8, 6], 2) == [0, 1, 0, 1]


@given(demands, st.integers(1, 300))
def test_the_budget_is_used_up_and_never_exceeded(pairs, max_rows):
    wanted, served = split(pairs)
    rows = allot(wanted, served, max_rows)
    assert all(0 <= got <= want for got, want in zip(rows, wanted, strict=True))
    assert sum(rows) == min(max_rows, sum(wanted))


@given(demands, st.integers(1, 300))
def test_nobody_who_wants_more_has_two_rows_less_than_another(pairs, max_rows):
    wanted, served = split(pairs)
    rows = allot(wanted, served, max_rows)
    for got, want in zip(rows, wanted, strict=True):
        assert got == want or got + 1 >= max(rows)


@given(demands, st.integers(1, 40))
def test_nobody_starves(pairs, max_rows):
    wanted, served = split(pairs)
    seen = set()
    for number in range(51, 51 + len(wanted) // max_rows + 1):
        for i, rows in enumerate(allot(wanted, served, max_rows)):
            if rows:
                served[i] = number
                seen.add(i)
    assert seen == set(range(len(wanted)))


def among(pairs, tenants, max_rows, served_tenants=None):
    wanted, served = split(pairs)
    return allot_among(tenants, served_tenants or [0] * len(tenants), wanted, served, max_rows)


def by_tenant(values, tenants):
    return {tenant: sum(v for v, t in zip(values, tenants, strict=True) if t == tenant) for tenant in tenants}


def test_many_sessions_and_long_drafts_get_no_more_than_one_share():
    greedy = [(33, 0)] * 7
    assert among([*greedy, (5, 0), (9, 0)], [*["greedy"] * 7, "modest", "other"], 64) == [8, 7, 7, 7, 7, 7, 7, 5, 9]


def test_more_tenants_than_rows_are_served_longest_ago_first():
    tenants = ["a", "a", "b", "c"]
    assert among([(1, 9), (1, 1), (1, 8), (1, 8)], tenants, 1, [9, 9, 8, 7]) == [0, 0, 0, 1]
    assert among([(1, 9), (1, 1), (1, 8), (1, 8)], tenants, 1, [6, 6, 8, 7]) == [0, 1, 0, 0]


@given(demands, st.integers(1, 300), st.sampled_from(["nobody", "alice"]))
def test_one_tenant_gets_just_what_its_sessions_would_get_without_tenants(pairs, max_rows, tenant):
    wanted, served = split(pairs)
    assert among(pairs, [tenant] * len(pairs), max_rows, [7] * len(pairs)) == allot(wanted, served, max_rows)


tenancies = demands.flatmap(
    lambda pairs: st.tuples(st.just(pairs), st.lists(st.integers(0, 4), min_size=len(pairs), max_size=len(pairs)))
)


@given(tenancies, st.integers(1, 300))
def test_with_tenants_the_budget_is_used_up_and_never_exceeded(tenancy, max_rows):
    (pairs, tenants), (wanted, _) = tenancy, split(tenancy[0])
    rows = among(pairs, tenants, max_rows)
    assert all(0 <= got <= want for got, want in zip(rows, wanted, strict=True))
    assert sum(rows) == min(max_rows, sum(wanted))


@given(tenancies, st.integers(1, 300))
def test_no_tenant_who_wants_more_has_two_rows_less_than_another(tenancy, max_rows):
    (pairs, tenants), (wanted, _) = tenancy, split(tenancy[0])
    rows = among(pairs, tenants, max_rows)
    got, want = by_tenant(rows, tenants), by_tenant(wanted, tenants)
    assert all(got[tenant] == want[tenant] or got[tenant] + 1 >= max(got.values()) for tenant in got)
    for tenant in got:
        own = [i for i in range(len(rows)) if tenants[i] == tenant]
        assert all(rows[i] == wanted[i] or rows[i] + 1 >= max(rows[j] for j in own) for i in own)


@given(tenancies, st.integers(1, 300), st.integers(1, 30))
def test_what_a_tenant_gets_does_not_fall_when_another_opens_more_sessions(tenancy, max_rows, more):
    (pairs, tenants), (wanted, _) = tenancy, split(tenancy[0])
    victim, abuser = tenants[0], 9
    fair = min(by_tenant(wanted, tenants)[victim], max_rows // (len({*tenants}) + 1))
    rows = among([*pairs, *[(600, 0)] * more], [*tenants, *[abuser] * more], max_rows)
    assert by_tenant(rows, [*tenants, *[abuser] * more])[victim] >= fair


@given(tenancies, st.integers(1, 40))
def test_with_tenants_nobody_starves(tenancy, max_rows):
    (_, tenants), (wanted, served) = tenancy, split(tenancy[0])
    last, seen = dict.fromkeys(tenants, 0), set()
    for number in range(51, 51 + 6 * (len(wanted) + 1)):
        rows = allot_among(tenants, [last[tenant] for tenant in tenants], wanted, served, max_rows)
        for i, count in enumerate(rows):
            if count:
                served[i] = last[tenants[i]] = number
                seen.add(i)
    assert seen == set(range(len(wanted)))


readings = demands.flatmap(
    lambda pairs: st.tuples(st.just(pairs), st.permutations(range(len(pairs))), st.integers(0, len(pairs)), st.integers(1, 300))
)


@given(readings)
def test_prompts_in_turn_have_the_rows_that_they_had_together_and_the_others_keep_theirs(reading):
    pairs, places, num_reading, max_rows = reading
    (wanted, served), order = split(pairs), places[:num_reading]
    rows = allot(wanted, served, max_rows)
    given_rows = in_turn(rows, order, wanted, served)
    assert sum(given_rows) == sum(rows)
    assert all(0 <= got <= want for got, want in zip(given_rows, wanted, strict=True))
    assert all(given_rows[i] == rows[i] for i in places[num_reading:])
    if order:
        longest_ago = min(order, key=lambda i: (served[i], i))
        assert given_rows[longest_ago] >= rows[longest_ago]
        most = SHARES_AT_ONCE * max(rows[i] for i in order)
        begun = [i for i in order if i != longest_ago and given_rows[i]]
        assert all(given_rows[i] == min(wanted[i], most) for i in begun[:-1]), "but the last all get the most there is"


def test_who_was_served_longest_ago_goes_on_however_many_come_before_it():
    assert in_turn([20, 20, 20], [1, 2, 0], [500, 35, 90], [3, 9, 9]) == [20, 35, 5]
    assert in_turn([20, 20, 20], [1, 2, 0], [500, 35, 90], [9, 9, 9]) == [20, 35, 5], "the first of equals"
    assert in_turn([20, 20, 20], [1, 2, 0], [500, 35, 90], [9, 9, 3]) == [0, 35, 25]


def test_nobody_gets_more_of_a_pass_than_some_even_shares():
    assert in_turn([10] * 8, list(range(8)), [500] * 8, [9] * 8) == [40, 40, 0, 0, 0, 0, 0, 0]
    assert in_turn([10] * 8, list(range(8)), [500] * 8, [9] * 7 + [3]) == [40, 30, 0, 0, 0, 0, 0, 10]


@given(demands, st.integers(1, 40))
def test_in_turn_nobody_starves(pairs, max_rows):
    wanted, served = split(pairs)
    order, seen = sorted(range(len(wanted)), key=lambda i: wanted[i]), set()
    for number in range(51, 51 + 2 * len(wanted)):
        for i, count in enumerate(in_turn(allot(wanted, served, max_rows), order, wanted, served)):
            if count:
                served[i] = number
                seen.add(i)
    assert seen == set(range(len(wanted)))
