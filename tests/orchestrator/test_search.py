"""The order in which the graph is handed out."""

from toy import Count

from orchestrator.plan import trials_of
from orchestrator.search import GraphSearcher
from orchestrator.study import Study
from trainables.api.identity import FileDigests, Keys


def searcher_of(trials, *, succeeds=lambda trial: True, done=(), max_concurrent=10):
    planned = trials_of(Study("s", "?", trials), Keys(FileDigests()))
    by_name = {t.name: t.key for t in planned}
    todo = [t for t in planned if t.name not in done]
    return GraphSearcher(
        todo, [by_name[n] for n in done], lambda t: {"payload": t.name}, lambda t, error: succeeds(t), max_concurrent
    )


def names(searcher, ids):
    suggestions = [searcher.suggest(i) for i in ids]
    return [s["payload"] if isinstance(s, dict) else s for s in suggestions]


def chain(*epochs):
    upstream = None
    for n in epochs:
        upstream = Count(n, upstream=upstream)
    return upstream


def test_a_trial_is_handed_out_the_moment_its_own_upstream_is_done():
    a, b = chain(1), chain(2)
    searcher = searcher_of({"a": a, "b": b, "after a": Count(3, upstream=a), "after b": Count(3, upstream=b)})
    assert names(searcher, "123") == ["a", "b", None]
    searcher.on_trial_complete("2")
    assert names(searcher, "45") == ["after b", None]
    searcher.on_trial_complete("1")
    assert names(searcher, "67") == ["after a", None]
    for i in "46":
        searcher.on_trial_complete(i)
    assert names(searcher, "8") == ["FINISHED"]


def test_a_failure_blocks_its_descendants_only():
    base = chain(1)
    middle = Count(2, upstream=base)
    searcher = searcher_of(
        {"base": base, "middle": middle, "leaf": Count(3, upstream=middle), "other": Count(9)},
        succeeds=lambda t: t.name != "base",
    )
    assert names(searcher, "12") == ["base", "other"]
    searcher.on_trial_complete("1", error=True)
    searcher.on_trial_complete("2")
    assert names(searcher, "3") == ["FINISHED"]
    assert len(searcher.blocked) == 2


def test_finished_upstream_counts_and_concurrency_is_limited():
    base = chain(1)
    searcher = searcher_of(
        {"base": base, **{f"t{n}": Count(n, upstream=base) for n in (2, 3, 4)}}, done=["base"], max_concurrent=2
    )
    assert names(searcher, "123") == ["t2", "t3", None]
    searcher.on_trial_complete("2")
    assert names(searcher, "4") == ["t4"]
