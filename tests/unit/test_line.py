"""Which of those that wait may start, and why the others may not."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.backend import Bundle, Capacity
from launcher.line import Decision, Line, Waiting
from launcher.placement import Blocked, Limits, Needs, Running, Shortage, free_of, placed
from tests.unit.test_placement import asking, cluster, node

NO_LIMITS = Limits()
NOW = 100.0


@dataclass(frozen=True)
class Judged:
    """Who may start, and why each of the others waits."""

    admitted: tuple[int, ...]
    waiting: dict[int, Shortage]


def waiting(number: int, wanted: Needs, *, repository: int = 1, at: float | None = None) -> Waiting:
    return Waiting(number, repository, wanted, number if at is None else at)


def admit(queue: Sequence[Waiting], running: Sequence[Running], capacity: Capacity, limits: Limits) -> Judged:
    line = Line(limits)
    for each in queue:
        line.add(each)
    decision = line.decide(running, capacity, NOW)
    others = {each.id: decision.why(each) for each in queue if each.id not in decision.admitted}
    return Judged(tuple(decision.admitted), others)


def test_first_in_is_first_out_whatever_the_order_of_the_rows():
    queue = [waiting(3, asking(CPU=1)), waiting(1, asking(CPU=1)), waiting(2, asking(CPU=1))]
    assert admit(queue, [], cluster(node("1", CPU=2)), NO_LIMITS).admitted == (1, 2)


def test_a_retry_keeps_the_place_it_had():
    queue = [waiting(9, asking(CPU=1), at=1.0), waiting(2, asking(CPU=1), at=2.0)]
    assert admit(queue, [], cluster(node("1", CPU=1)), NO_LIMITS).admitted == (9,)


def test_nobody_overtakes_on_the_same_machine_type():
    queue = [waiting(1, asking("m", CPU=4)), waiting(2, asking("m", CPU=1))]
    decided = admit(queue, [], cluster(node("1", CPU=2)), NO_LIMITS)
    assert decided.admitted == ()
    assert (decided.waiting[1].blocked, decided.waiting[1].ahead) == (Blocked.MACHINES, 0)
    assert (decided.waiting[2].blocked, decided.waiting[2].ahead) == (Blocked.AHEAD, 1)
    assert decided.waiting[2].missing == {}


def test_another_machine_type_is_another_queue():
    queue = [waiting(1, asking("gpu", GPU=1)), waiting(2, asking("cpu", CPU=1))]
    assert admit(queue, [], cluster(node("1", CPU=2)), NO_LIMITS).admitted == (2,)


def test_a_gang_of_two_machine_types_holds_its_place_in_both_queues():
    gang = Needs(("cpu", "gpu"), (Bundle({"CPU": 1}), Bundle({"GPU": 1})))
    queue = [waiting(1, gang), waiting(2, asking("cpu", CPU=1)), waiting(3, asking("other", CPU=1))]
    decided = admit(queue, [], cluster(node("1", CPU=2)), NO_LIMITS)
    assert decided.admitted == (3,)
    assert decided.waiting[2].ahead == 1


def test_what_is_admitted_in_this_pass_is_not_given_twice():
    queue = [waiting(number, asking(f"m{number}", CPU=2)) for number in (1, 2, 3)]
    assert admit(queue, [], cluster(node("1", CPU=4)), NO_LIMITS).admitted == (1, 2)


def test_no_more_run_at_once_than_the_limit_says():
    queue = [waiting(number, asking(CPU=1)) for number in (1, 2, 3)]
    running = [Running(7, 2, asking(CPU=1), ("1",))]
    decided = admit(queue, running, cluster(node("1", CPU=9)), Limits(max_running=2))
    assert decided.admitted == (1,)
    assert [(s.blocked, s.limit, s.ahead) for s in decided.waiting.values()] == [
        (Blocked.MAX_RUNNING, 2, 0),
        (Blocked.MAX_RUNNING, 2, 1),
    ]


def test_a_repository_at_its_limit_holds_up_only_itself():
    queue = [
        waiting(1, asking(CPU=1), repository=1),
        waiting(2, asking(CPU=1), repository=1),
        waiting(3, asking(CPU=1), repository=2),
    ]
    decided = admit(queue, [], cluster(node("1", CPU=9)), Limits(max_running_per_repository=1))
    assert decided.admitted == (1, 3)
    assert decided.waiting[2].blocked is Blocked.MAX_RUNNING_PER_REPOSITORY
    assert decided.waiting[2].limit == 1


def test_hosts_that_are_not_proven_clean_are_not_used():
    capacity = cluster(node("1", CPU=1), node("2", CPU=1)).without({"host-1"})
    queue = [waiting(1, asking(CPU=1)), waiting(2, asking(CPU=1))]
    assert admit(queue, [], capacity, NO_LIMITS).admitted == (1,)


def test_what_ray_has_no_place_for_keeps_its_place_takes_no_room_and_lets_other_machine_types_pass():
    queue = [
        Waiting(0, 1, asking("a", CPU=4), 0, NOW - 1, 15),
        waiting(1, asking("a", CPU=1)),
        waiting(2, asking("b", CPU=4)),
    ]
    decided = admit(queue, [], cluster(node("1", CPU=4)), NO_LIMITS)
    assert decided.admitted == (2,)
    assert decided.waiting[0] == Shortage(Blocked.UNPLACED, needed={"CPU": 4})
    assert (decided.waiting[1].blocked, decided.waiting[1].ahead) == (Blocked.AHEAD, 1)


def test_what_has_no_room_by_our_own_count_says_so_whatever_ray_said():
    queue = [Waiting(0, 1, asking("a", CPU=8), 0, NOW - 1, 15)]
    assert admit(queue, [], cluster(node("1", CPU=4)), NO_LIMITS).waiting[0].blocked is Blocked.MACHINES


def test_a_clock_that_was_put_back_makes_nobody_wait_for_the_future():
    queue = [Waiting(1, 1, asking(CPU=1), 0, NOW + 3600, 1800)]
    assert admit(queue, [], cluster(node("1", CPU=1)), NO_LIMITS).admitted == (1,)


def test_of_ten_thousand_that_wait_only_the_first_of_each_kind_is_asked(monkeypatch: pytest.MonkeyPatch):
    shapes = itertools.cycle([asking("a", CPU=1), asking("b", CPU=2, GPU=1), asking("c", count=4, CPU=1)])
    line = Line(NO_LIMITS)
    for number in range(10_000):
        line.add(waiting(number, next(shapes), repository=number % 50))
    asked: list[int] = []
    judge = Decision.judge
    monkeypatch.setattr(Decision, "judge", lambda self, one, now: asked.append(one.id) or judge(self, one, now))
    decision = line.decide([], cluster(*(node(str(number), CPU=2.0, GPU=0.0) for number in range(8))), NOW)
    assert len(asked) <= len(decision.admitted) + 3
    assert decision.why(line.get(9_999) or waiting(0, asking())).ahead >= 3_300


def test_who_leaves_the_line_is_ahead_of_nobody_and_may_come_back():
    line = Line(NO_LIMITS)
    one, two = waiting(1, asking(CPU=1)), waiting(2, asking(CPU=1))
    for each in (two, one, one):
        line.add(each)
    assert (list(line), line.ahead(two), line.ahead(two, gone=[1, 7])) == ([1, 2], 1, 0)
    line.remove(1)
    line.remove(1)
    assert (list(line), line.ahead(two), line.get(1)) == ([2], 0, None)
    line.add(one)
    assert (len(line), line.ahead(two), line.queued_before(2.0)) == (2, 1, [1])


needs_of_any_kind = st.builds(
    asking,
    st.sampled_from(["a", "b"]),
    st.integers(1, 3),
    st.sampled_from(["PACK", "STRICT_SPREAD"]),
    CPU=st.integers(1, 4),
)


@given(st.lists(needs_of_any_kind, max_size=12), st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_what_is_admitted_fits_and_is_a_prefix_of_every_queue(wanted, cpus):
    capacity = cluster(*(node(str(i), CPU=float(count)) for i, count in enumerate(cpus)))
    queue = [waiting(number, each) for number, each in enumerate(wanted)]
    decided = admit(queue, [], capacity, NO_LIMITS)
    assert set(decided.admitted) | set(decided.waiting) == set(range(len(wanted)))
    assert sum(bundle.resources["CPU"] for i in decided.admitted for bundle in wanted[i].bundles) <= sum(cpus)
    for lane in ("a", "b"):
        admitted = [i in decided.admitted for i, each in enumerate(wanted) if each.lanes == (lane,)]
        assert admitted == sorted(admitted, reverse=True)


def asked_one_by_one(queue: Sequence[Waiting], nodes: int, limits: Limits, running: Sequence[Running]) -> list[int]:
    """The rule, as it is told: everybody in order."""
    free = free_of(cluster(*(node(str(i), CPU=2.0) for i in range(nodes))), running)
    by_repository, closed, admitted = Counter(each.repository_id for each in running), set[str](), list[int]()
    for each in sorted(queue, key=lambda one: (one.queued_at, one.id)):
        full = limits.max_running is not None and len(running) + len(admitted) >= limits.max_running
        most = limits.max_running_per_repository
        if full or (most is not None and by_repository[each.repository_id] >= most):
            continue
        if closed.isdisjoint(each.needs.lanes):
            left = placed(each.needs, free)
            if left is None or each.unplaced(NOW):
                closed.update(each.needs.lanes)
            else:
                free = left
                admitted.append(each.id)
                by_repository[each.repository_id] += 1
    return admitted


gangs_of_any_kind = st.builds(
    lambda lanes, asked: replace(asked, lanes=tuple(sorted(lanes))),
    st.sets(st.sampled_from("abc"), min_size=1),
    needs_of_any_kind,
)
limits_of_any_kind = st.builds(Limits, st.none() | st.integers(1, 5), st.none() | st.integers(1, 3))


@given(
    st.lists(st.tuples(gangs_of_any_kind, st.integers(1, 3), st.integers(0, 4), st.booleans()), max_size=14),
    st.integers(0, 6),
    limits_of_any_kind,
    st.lists(st.integers(1, 3), max_size=2),
)
def test_asking_the_first_of_each_kind_gives_what_asking_everybody_gives(wanted, nodes, limits, repositories):
    queue = [
        Waiting(number, repository, each, at, NOW if unplaced else 0.0, 15.0)
        for number, (each, repository, at, unplaced) in enumerate(wanted)
    ]
    running = [Running(100 + n, repository, asking(CPU=1), (str(n),)) for n, repository in enumerate(repositories)]
    decided = admit(queue, running, cluster(*(node(str(i), CPU=2.0) for i in range(nodes))), limits)
    assert list(decided.admitted) == asked_one_by_one(queue, nodes, limits, running)
    for each in queue:
        if each.id in decided.waiting:
            before = [o for o in queue if o.id in decided.waiting and (o.queued_at, o.id) < (each.queued_at, each.id)]
            longest = max(sum(lane in o.needs.lanes for o in before) for lane in each.needs.lanes)
            assert decided.waiting[each.id].ahead == longest
