"""What starts when: the order, what fits, what may pass what, and what never happens in any graph."""

import heapq
import itertools
import random

import pytest

from orchestrator.order import QueuedTrial
from orchestrator.queue import MAX_WAITING_FOR_NODES, TrialQueue
from orchestrator.resources import Amount, Capacity, Demand

NARROW, WIDE = Demand(Amount(1.0)), Demand(Amount(1.0), 2)


def trial(key, estimated_s=10.0, upstream="", demand=NARROW, **more):
    return QueuedTrial(key, demand, tuple(upstream.split()), estimated_s, **more)


def cpus(*nodes, can_grow=False):
    return Capacity(tuple(Amount(float(number)) for number in nodes), can_grow)


def queue_of(*trials, max_concurrent=None):
    queue = TrialQueue(max_concurrent)
    queue.add(trials)
    return queue


def taken(queue, capacity, now_s=0.0):
    """Keys of all that start now."""
    keys = []
    while (found := queue.take(now_s, capacity)) is not None:
        keys.append(found.key)
    return keys


# -- the order ----------------------------------------------------------------------------------------


def test_the_longest_remaining_path_goes_first_whatever_the_order_of_the_plan():
    chain = [trial("a", 5), trial("b", 5, "a"), trial("c", 5, "b")]
    leaf = trial("leaf", 12)
    for trials in ([leaf, *chain], [*chain, leaf]):
        queue = queue_of(*trials)
        assert taken(queue, cpus(1)) == ["a"]  # 15 s of path before 12 s
        queue.end("a", 5.0, has_result=True)
        assert taken(queue, cpus(1), 5.0) == ["leaf"]  # 10 s are left of it


def test_a_long_leaf_goes_before_a_short_chain():
    assert taken(queue_of(trial("a", 5), trial("b", 5, "a"), trial("leaf", 12)), cpus(1)) == ["leaf"]


def test_equal_ones_go_in_the_order_of_the_plan():
    assert taken(queue_of(*(trial(key) for key in "dbca")), cpus(3)) == ["d", "b", "c"]


def test_where_nothing_is_known_more_steps_are_longer():
    for unknown in (None, 0.0):
        trials = [trial("leaf", unknown), trial("a", unknown), trial("b", unknown, "a")]
        assert taken(queue_of(*trials), cpus(1)) == ["a"]


@pytest.mark.parametrize("is_renewed", [False, True])
def test_a_path_leads_through_the_longest_of_what_waits(is_renewed):
    trials = [trial("x", 1), trial("y", 2), trial("x1", 3, "x"), trial("x2", 20, "x"), trial("y1", 18, "y")]
    family = [trial(f"of {n}", 6, family="f", length=n) for n in (9, 5, 2)]
    leaf = trial("leaf", 17)
    queue = queue_of(*trials, *family, leaf, trial("first", 90, kind="else"))
    if is_renewed:
        assert taken(queue, cpus(1)) == ["first"]
        queue.end("first", 90.0, has_result=True)
    else:
        queue.take(0.0, cpus(1))
    assert taken(queue, cpus(4 + (not is_renewed))) == ["x", "y", "of 2", "leaf"]


def test_the_longer_ones_of_a_family_count_as_waiting_and_wait():
    family = [trial(f"of {n}", 5, family="f", length=n) for n in (9, 2, 4)]
    queue = queue_of(trial("leaf", 12), *family)
    assert taken(queue, cpus(1)) == ["of 2"]
    queue.end("of 2", 5.0, has_result=False)  # well or not
    assert taken(queue, cpus(3), 5.0) == ["leaf", "of 4"]
    queue.end("of 4", 9.0, has_result=True)
    assert taken(queue, cpus(3), 9.0) == ["of 9"]
    assert queue.blocked == {}


def test_a_shorter_one_that_comes_later_goes_before_the_longer_one_that_was_ready():
    queue = queue_of(trial("of 9", family="f", length=9), trial("first", 100))
    assert taken(queue, cpus(1)) == ["first"]
    queue.add([trial("of 3", family="f", length=3)])
    assert taken(queue, cpus(3)) == ["of 3"]
    queue.end("of 3", 1.0, has_result=True)
    assert taken(queue, cpus(3), 1.0) == ["of 9"]


def test_what_trials_of_a_kind_took_corrects_the_estimates_of_others():
    def queue_after(took_s):
        queue = queue_of(trial("a1", 10, kind="A"), trial("a2", 9, kind="A"), trial("b", 8, kind="B"))
        assert taken(queue, cpus(1)) == ["a1"]
        queue.end("a1", took_s, has_result=True)
        return queue

    assert taken(queue_after(10.0), cpus(1), 10.0) == ["a2"]
    assert taken(queue_after(1.0), cpus(1), 10.0) == ["b"]  # half way to a tenth: 9 s are 2.8 s


def test_a_failure_teaches_nothing_about_durations():
    queue = queue_of(trial("a1", 10, kind="A"), trial("a2", 9, kind="A"), trial("b", 8, kind="B"))
    assert taken(queue, cpus(1)) == ["a1"]
    queue.end("a1", 0.1, has_result=False)
    assert taken(queue, cpus(1), 1.0) == ["a2"]


def test_a_trial_without_estimate_takes_what_others_of_its_kind_took():
    queue = queue_of(trial("a1", None, kind="A"), trial("b", 20), trial("a2", None, kind="A"))
    assert taken(queue, cpus(2)) == ["b", "a1"]
    queue.add([trial("c", 20)])
    queue.end("a1", 30.0, has_result=True)
    assert taken(queue, cpus(2), 30.0) == ["a2"]


def test_guesses_are_corrected_by_what_other_guesses_were_wrong_by_and_measured_estimates_are_not():
    def next_after(a_is_measured, b_is_measured):
        a = trial("a", 10, kind="A", is_measured=a_is_measured)
        b, c = trial("b", 9, kind="B", is_measured=b_is_measured), trial("c", 8, kind="C", is_measured=True)
        queue = queue_of(a, b, c)
        assert taken(queue, cpus(1)) == ["a"]
        queue.end("a", 1.0, has_result=True)
        return taken(queue, cpus(1), 1.0)

    assert next_after(False, False) == ["c"]
    assert next_after(False, True) == ["b"]
    assert next_after(True, False) == ["b"]


# -- ends, losses, additions --------------------------------------------------------------------------


def test_a_failure_blocks_its_descendants_only_and_names_them():
    trials = [trial("a"), trial("b"), trial("c", upstream="a b"), trial("d", upstream="c"), trial("e", upstream="b")]
    queue = queue_of(*trials)
    assert taken(queue, cpus(4)) == ["a", "b"]
    queue.end("a", 1.0, has_result=False)
    queue.end("b", 1.0, has_result=True)
    assert queue.blocked == {"c": "a", "d": "c"}
    assert taken(queue, cpus(4), 1.0) == ["e"]
    assert not queue.is_finished
    queue.end("e", 2.0, has_result=True)
    assert queue.is_finished
    assert (set(queue.done), set(queue.lost)) == ({"b", "e"}, {"a", "c", "d"})


def test_a_longer_training_goes_on_where_another_driver_lost_the_shorter_one():
    queue = queue_of(trial("of 2", family="f", length=2), trial("of 4", family="f", length=4))
    queue.add([], lost={"of 2"})
    assert taken(queue, cpus(2)) == ["of 4"]


def test_what_hung_on_a_lost_trial_lengthens_no_path():
    trials = [trial("a", 5), trial("x", 6), trial("bad", 200), trial("long", 50, "a bad"), trial("y", 7)]
    queue = queue_of(*trials)
    assert taken(queue, cpus(1)) == ["bad"]
    queue.end("bad", 1.0, has_result=False)
    assert taken(queue, cpus(1), 1.0) == ["y"]  # 7 s, where a would have had 55


def test_trials_that_join_raise_what_they_wait_for():
    queue = queue_of(trial("busy", 90), trial("a", 5), trial("b", 6, ""), trial("c", 5, "a"))
    assert taken(queue, cpus(1)) == ["busy"]
    queue.add([trial("e", 3, "b"), trial("f", 9, "e")])
    assert taken(queue, cpus(3), 1.0) == ["b", "a"]


def test_what_others_finished_or_lost_meanwhile_counts():
    queue = TrialQueue()
    queue.add([trial("a", upstream="before"), trial("b", upstream="gone")], done={"before"}, lost={"gone"})
    assert taken(queue, cpus(2)) == ["a"]
    assert queue.blocked == {"b": "gone"}
    queue.add([trial("x"), trial("after x", upstream="x"), trial("y"), trial("z", upstream="y")])
    queue.add([trial("after a", upstream="a")], done={"x"}, lost={"y"})
    assert taken(queue, cpus(9), 1.0) == ["x", "after x"]  # x finds its result when it starts
    assert queue.blocked == {"b": "gone", "z": "y"}
    for key in ("x", "after x"):
        queue.end(key, 2.0, has_result=True)
    assert taken(queue, cpus(9), 2.0) == []
    queue.end("a", 3.0, has_result=True)
    assert taken(queue, cpus(9), 3.0) == ["after a"]


# -- what fits ----------------------------------------------------------------------------------------


def test_cpus_and_gpus_are_two_things():
    on_gpu = Demand(Amount(1.0, 1.0))
    capacity = Capacity((Amount(4.0, 1.0),))
    queue = queue_of(*(trial(f"g{n}", 20, demand=on_gpu) for n in (1, 2)), *(trial(f"c{n}") for n in (1, 2, 3, 4)))
    assert taken(queue, capacity) == ["g1", "c1", "c2", "c3"]  # the last CPU is not kept for a GPU that is taken
    queue.end("g1", 1.0, has_result=True)
    assert taken(queue, capacity, 1.0) == ["g2"]


def test_shares_of_a_gpu_add_up():
    share = Demand(Amount(0.1, 0.3))
    queue = queue_of(*(trial(str(n), demand=share) for n in range(5)))
    assert taken(queue, Capacity((Amount(4.0, 1.0),))) == ["0", "1", "2"]
    tenth = Demand(Amount(0.1, 0.1))
    assert len(taken(queue_of(*(trial(str(n), demand=tenth) for n in range(12))), Capacity((Amount(1.0, 1.0),)))) == 10


def test_concurrency_is_limited():
    queue = queue_of(*(trial(key) for key in "abc"), max_concurrent=2)
    assert taken(queue, cpus(8)) == ["a", "b"]
    assert not queue.has_room(NARROW)
    queue.end("a", 1.0, has_result=True)
    assert taken(queue, cpus(8), 1.0) == ["c"]


def test_a_trial_that_no_node_holds_passes_nobody_and_comes_last():
    large = trial("large", 100, demand=Demand(Amount(3.0)))
    queue = queue_of(large, trial("a"), trial("b"))
    assert taken(queue, cpus(2, 2)) == ["a", "b"]  # 4 CPUs, but no node of 3
    queue.end("a", 1.0, has_result=True)
    assert taken(queue, cpus(2, 2), 1.0) == []
    queue.end("b", 2.0, has_result=True)
    assert taken(queue, cpus(2, 2), 2.0) == ["large"]  # so that the cluster says what it lacks


# -- who may pass -------------------------------------------------------------------------------------


def running_beside_a_wide_one(*others):
    """Two CPUs, one of them taken until 10 s; a wide one is next."""
    queue = queue_of(trial("runs", 110), trial("wide", 90, demand=WIDE), *others)
    assert queue.take(-100.0, cpus(1)).key == "runs"
    return queue


def test_a_short_one_passes_and_a_long_one_does_not():
    queue = running_beside_a_wide_one(trial("long", 11), trial("short", 9))
    assert taken(queue, cpus(2)) == ["short"]
    queue.end("short", 9.0, has_result=True)
    assert taken(queue, cpus(2), 9.0) == []
    queue.end("runs", 10.0, has_result=True)
    assert taken(queue, cpus(2), 10.0) == ["wide"]


def test_what_leaves_room_for_both_may_pass_however_long_it_is():
    on_gpu = Demand(Amount(1.0, 1.0))
    trials = [trial("g1", 100, demand=on_gpu), trial("g2", 100, demand=on_gpu), trial("cpu", 5000)]
    chains = [trial("after g1", 20_000, "g1"), trial("after g2", 9000, "g2")]
    assert taken(queue_of(*trials, *chains), Capacity((Amount(2.0, 1.0),))) == ["g1", "cpu"]
    wide = trial("g2", 100, demand=Demand(Amount(2.0, 1.0)))
    queue = queue_of(trials[0], wide, trials[2], *chains)
    assert taken(queue, Capacity((Amount(2.0, 1.0),))) == ["g1"]  # g2 will need both CPUs


@pytest.mark.parametrize("estimated_s", [None, 0.0, 0.001, 1.0])
def test_a_wide_one_is_not_passed_for_ever_whatever_the_estimates_say(estimated_s):
    """Narrow ones come without end, each 50 s long, and the wide one waits for two CPUs."""
    queue = queue_of(trial("n0", estimated_s, is_measured=True), trial("wide", estimated_s, demand=WIDE))
    running, now_s, numbers = [], 0.0, itertools.count(1)
    for step in range(40):
        # Of a kind of their own: nothing is learned from those before.
        queue.add([trial(f"n{next(numbers)}", estimated_s, kind=f"kind {step}", is_measured=True)])
        for key in taken(queue, cpus(2), now_s):
            if key == "wide":
                return
            heapq.heappush(running, (now_s + 50.0 + step, key))
        now_s, key = heapq.heappop(running)
        queue.end(key, now_s, has_result=True)
    raise AssertionError("the wide one never started")


def test_a_search_adds_nothing_while_a_trial_waits_for_room():
    queue = running_beside_a_wide_one()
    assert taken(queue, cpus(2)) == []
    assert not queue.has_room(NARROW)
    queue = queue_of(trial("runs"))
    assert taken(queue, cpus(2)) == ["runs"]
    assert queue.has_room(NARROW)
    assert not queue.has_room(WIDE)


# -- nodes that come ----------------------------------------------------------------------------------


def test_where_nodes_may_come_a_bounded_number_waits_for_them():
    queue = queue_of(*(trial(f"{n:02}") for n in range(40)))
    assert len(taken(queue, cpus(2, can_grow=True))) == 2 + MAX_WAITING_FOR_NODES
    assert not queue.has_room(NARROW)
    assert len(taken(queue, cpus(2, 3, can_grow=True))) == 3
    queue.end("00", 1.0, has_result=True)
    assert len(taken(queue, cpus(2, 3, can_grow=True), 1.0)) == 1


def test_a_wide_one_that_waits_for_a_node_is_not_passed_where_these_nodes_can_hold_it():
    queue = queue_of(trial("runs", 100))
    assert taken(queue, cpus(2, can_grow=True)) == ["runs"]
    queue.add([trial("wide", 500, demand=WIDE), trial("long", 150), trial("short", 50)])
    # The free CPU is for what is over in time; the long one waits for a node, behind the wide one.
    assert taken(queue, cpus(2, can_grow=True)) == ["wide", "short", "long"]


def test_a_wide_one_that_waits_for_a_node_is_passed_a_bounded_number_of_times():
    queue = queue_of(trial("r1", 100), trial("r2", 100))
    capacity = cpus(2, can_grow=True)
    running = taken(queue, capacity)
    queue.add([trial("wide", 500, demand=WIDE), *(trial(f"n{n:02}", 150) for n in range(60))])
    running += [key for key in taken(queue, capacity) if key != "wide"]
    num_passed = len(running) - 2
    while running:  # the cluster prefers narrow ones, and no node comes
        queue.end(running.pop(0), 200.0, has_result=True)
        started = taken(queue, capacity, 200.0)
        if not running:
            break
        running += started
        num_passed += len(started)
    assert num_passed <= MAX_WAITING_FOR_NODES


def test_from_no_nodes_at_all():
    queue = queue_of(trial("a"), trial("b", upstream="a"))
    assert taken(queue, Capacity((), can_grow=True)) == ["a"]
    queue.end("a", 300.0, has_result=True)
    assert taken(queue, cpus(1, can_grow=True), 300.0) == ["b"]


def test_a_gpu_that_is_to_come_holds_up_no_cpu():
    queue = queue_of(trial("gpu", 500, demand=Demand(Amount(1.0, 1.0))), *(trial(f"c{n:02}") for n in range(60)))
    capacity = cpus(2, can_grow=True)
    running, num_started = taken(queue, capacity), 0
    for now_s in range(1, 60):
        queue.end(running.pop(1), float(now_s), has_result=True)  # never the one that waits for the GPU
        started = taken(queue, capacity, float(now_s))
        num_started += len(started)
        running += started
        if len(running) == 1:
            break
    assert num_started >= 60 - 2 - MAX_WAITING_FOR_NODES


def test_waiting_for_a_node_is_no_work():
    queue = queue_of(trial("a1", 10, kind="A"), trial("a2", 9, kind="A"), trial("b", 9.5, kind="B"), max_concurrent=2)
    assert queue.take(0.0, Capacity((), can_grow=True)).key == "a1"
    assert queue.take(500.0, cpus(1, can_grow=True)).key == "b"
    queue.end("a1", 510.0, has_result=True)
    queue.end("b", 510.0, has_result=True)
    queue.add([trial("c", 9.5, kind="C")])
    assert queue.take(510.0, cpus(1)).key == "c"  # A takes 10 s, not 510


# -- any graph ----------------------------------------------------------------------------------------


def random_case(rng):
    nodes = tuple(Amount(float(rng.randint(1, 4)), float(rng.choice((0, 0, 1, 2)))) for _ in range(rng.randint(1, 3)))
    capacity = Capacity(nodes)
    demands = [Demand(Amount(rng.choice((0.5, 1.0, 2.0)), rng.choice((0.0, 0.0, 0.3, 1.0))), n) for n in (1, 1, 2, 4)]
    demands = [demand for demand in demands if capacity.can_hold(demand)] or [Demand(Amount(0.5))]
    trials, num_families = [], rng.randint(0, 3)
    for i in range(rng.randint(1, 40)):
        upstream = tuple({str(rng.randrange(i)) for _ in range(rng.randint(0, 2))}) if i else ()
        estimate = rng.choice((None, 0.0, rng.lognormvariate(2, 1), rng.lognormvariate(2, 1)))
        is_grown = num_families and rng.random() < 0.3
        family = f"f{rng.randrange(num_families)}" if is_grown else None
        trials.append(
            QueuedTrial(
                str(i),
                rng.choice(demands),
                () if is_grown else upstream,
                estimate,
                rng.choice("AB"),
                rng.random() < 0.5,
                family,
                i * 7 % 41,
            )
        )
    return trials, capacity


def check_case(seed, again=0.0):
    """Any graph, to its end; ``again`` is the share of ends after which a trial is tried once more, later."""
    rng = random.Random(seed)
    trials, capacity = random_case(rng)
    by_key = {t.key: t for t in trials}
    queue, later = TrialQueue(), trials[len(trials) // 2 :]
    queue.add(trials[: len(trials) // 2])
    now_s, running, ended, failed, started = 0.0, [], set(), set(), set()

    def left():
        return capacity.left_by(by_key[key].demand for _, key in running)

    def may_start(t):
        is_preceded = any(
            o.family == t.family and o.length < t.length and o.key not in ended and o.key not in queue.blocked
            for o in trials
            if o.family is not None and o not in later
        )
        return t.key not in started and t not in later and set(t.upstream) <= ended - failed and not is_preceded

    put_back = {}  # by key: when it may start again
    while True:
        if later and (not running or rng.random() < 0.2):
            queue.add(later)
            later = []
        while (found := queue.take(now_s, capacity)) is not None:
            is_due = found.key in put_back and put_back.pop(found.key) <= now_s
            assert is_due or may_start(found), f"seed {seed}: {found.key} had to wait"
            assert left().holds(found.demand.total), f"seed {seed}: {found.key} does not fit"
            started.add(found.key)
            heapq.heappush(running, (now_s + rng.lognormvariate(2, 1.5), found.key))
        ready = [t for t in trials if may_start(t)]
        fit = [t for t in ready if left().holds(t.demand.total)]
        # Slots stay free only for one that does not fit yet.
        assert not fit or len(fit) < len(ready), f"seed {seed}: {[t.key for t in fit]} could start"
        if not running:
            if later:
                continue
            if not put_back:
                break
            assert not queue.is_finished
            now_s = min(put_back.values())
            continue
        now_s, key = heapq.heappop(running)
        if again and rng.random() < again:
            put_back[key] = now_s + rng.choice((0.0, 5.0, 50.0))
            queue.put_back(by_key[key], put_back[key])
            continue
        ended.add(key)
        if has_failed := rng.random() < 0.1:
            failed.add(key)
        queue.end(key, now_s, has_result=not has_failed)
    assert queue.is_finished, f"seed {seed}: something waits for ever"
    assert started | set(queue.blocked) == set(by_key)
    assert not started & set(queue.blocked)
    for key, because_of in queue.blocked.items():
        assert because_of in by_key[key].upstream
        assert because_of in failed or because_of in queue.blocked


@pytest.mark.parametrize("block", range(8))
def test_in_any_graph_all_ends_nothing_overflows_and_nothing_idles(block):
    for seed in range(block * 300, (block + 1) * 300):
        check_case(seed)


def test_in_any_graph_all_ends_where_trials_are_tried_again():
    for seed in range(300):
        check_case(seed, again=0.3)


def test_what_is_tried_again_later_holds_no_slot_and_what_waits_for_it_waits_on():
    queue = queue_of(trial("a"), trial("after a", 5, "a"), trial("b", 5))
    assert taken(queue, cpus(1)) == ["a"]
    queue.put_back(trial("a"), 30.0)
    assert taken(queue, cpus(1), 1.0) == ["b"]
    queue.end("b", 6.0, has_result=True)
    assert taken(queue, cpus(1), 29.0) == []
    assert not queue.is_finished
    assert taken(queue, cpus(1), 30.0) == ["a"]
    queue.end("a", 40.0, has_result=True)
    assert taken(queue, cpus(1), 40.0) == ["after a"]


def test_what_is_tried_again_may_ask_for_more():
    queue = queue_of(trial("a"), trial("b"), trial("c"))
    assert taken(queue, cpus(2)) == ["a", "b"]
    queue.put_back(trial("a", demand=Demand(Amount(2.0))), 0.0)
    assert taken(queue, cpus(2), 1.0) == []  # it comes first, and nothing runs beside it
    queue.end("b", 2.0, has_result=True)
    assert taken(queue, cpus(2), 2.0) == ["a"]
    queue.end("a", 3.0, has_result=True)
    assert taken(queue, cpus(2), 3.0) == ["c"]


def test_ten_thousand_trials_take_steps_in_proportion():
    """Counted, not timed: comparisons with what waits would be 10^8."""
    queue = queue_of(*(trial(str(n), float(n % 97 + 1)) for n in range(10_000)))
    counted = {"steps": 0}
    order = queue._order
    real = order._priority

    def counting(node):
        counted["steps"] += 1
        return real(node)

    order._priority = counting
    running, now_s = [], 0.0
    while not queue.is_finished:
        for key in taken(queue, cpus(8), now_s):
            heapq.heappush(running, (now_s + int(key) % 97 + 1.0, key))
        now_s, key = heapq.heappop(running)
        queue.end(key, now_s, has_result=True)
    assert counted["steps"] < 20 * 10_000
