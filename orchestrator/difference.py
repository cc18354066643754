"""What has changed since an earlier submission of a study, and why: its manifest against the plan of now."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Entry = Mapping[str, Any]
"""A trial in a manifest."""
Files = Callable[[str], Mapping[str, str] | None]
"""Digests of files by name, of the document of this digest; None where nobody has it."""

_MOST_COMPARED = 40  # of trials that are alike in what they are called: more are paired in their order
_LONGEST_VALUE = 40
_MOST_NAMES = 3


@dataclass(frozen=True)
class Cause:
    """Why a trial has another key than before."""

    what: str
    """A field without its path, a class with a version, or a data set."""
    before: str
    after: str
    text: str = field(compare=False)


@dataclass(frozen=True)
class Change:
    """Trials of one class that changed for the same reasons, and those that only hang on them."""

    kind: str
    causes: tuple[Cause, ...]
    keys: tuple[str, ...]
    dependents: tuple[str, ...]

    @property
    def text(self) -> str:
        """Why, in a line."""
        return ", ".join(cause.text for cause in self.causes) or "not told by that submission"


@dataclass(frozen=True)
class Difference:
    """From an earlier submission to now."""

    unchanged: tuple[str, ...]
    """Keys that both have."""
    changes: tuple[Change, ...]
    more: tuple[Entry, ...]
    """Trials of now that replace none."""
    gone: tuple[Entry, ...]
    """Trials of then that none replaces."""


def difference(
    before: Sequence[Entry],
    now: Sequence[Entry],
    left_out: Mapping[str, Mapping[str, bool]],
    files: Files = lambda digest: None,
) -> Difference:
    """Compare the trials of two manifests, upstream first.

    ``left_out``: of the keys of now, the fields that do not count (``identity.left_out_of``).
    """
    old, new = _by_key(before), _by_key(now)
    pairs = _pairs([e for k, e in old.items() if k not in new], [e for k, e in new.items() if k not in old])
    causes: dict[str, frozenset[Cause]] = {}  # of changed trials of now, also those of what they wait for
    roots: dict[tuple[str, tuple[Cause, ...]], list[str]] = {}
    hanging: dict[tuple[str, tuple[Cause, ...]], list[str]] = {}
    group_of: dict[str, tuple[str, tuple[Cause, ...]]] = {}
    for key, entry in new.items():
        if key not in pairs:
            continue
        changed = [upstream for upstream in entry["upstream"] if upstream in causes]
        inherited = frozenset[Cause]().union(*(causes[upstream] for upstream in changed))
        own = _causes(pairs[key], entry, _classes(pairs[key], old), _classes(entry, new), left_out.get(key, {}), files)
        fresh = tuple(cause for cause in own if cause not in inherited)
        causes[key] = inherited.union(own)
        if fresh or not changed:
            group_of[key] = entry["class"], fresh
            roots.setdefault(group_of[key], []).append(key)
        else:
            group_of[key] = group_of[changed[0]]
            hanging.setdefault(group_of[key], []).append(key)
    changes = (Change(*group, tuple(keys), tuple(hanging.get(group, ()))) for group, keys in roots.items())
    replaced = {entry["key"] for entry in pairs.values()}
    return Difference(
        tuple(key for key in new if key in old),
        tuple(changes),
        tuple(entry for key, entry in new.items() if key not in old and key not in pairs),
        tuple(entry for key, entry in old.items() if key not in new and key not in replaced),
    )


def _by_key(entries: Iterable[Entry]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries:
        found.setdefault(entry["key"], entry)
    return found


# -- which replaces which -----------------------------------------------------------------------------


def _pairs(before: Sequence[Entry], now: Sequence[Entry]) -> dict[str, Entry]:
    """The trial of then that each key of now replaces: equal in class, role, labels and seeds, or in name."""
    found: dict[str, Entry] = {}
    left = {entry["key"]: entry for entry in before}
    leaves = {entry["key"]: dict(_leaves(entry["configuration"], set())) for entry in (*before, *now)}

    def distance(one: Entry, other: Entry) -> tuple[bool, int]:
        """Another name is further away than any other field."""
        old, new = leaves[one["key"]], leaves[other["key"]]
        return one["name"] != other["name"], sum(old.get(path) != new.get(path) for path in {**old, **new})

    for called in (_called, _name):
        waiting: dict[Any, list[Entry]] = {}
        for entry in left.values():
            waiting.setdefault(called(entry), []).append(entry)
        for entry in now:
            candidates = waiting.get(called(entry), [])
            if entry["key"] not in found and candidates:
                chosen = min(candidates[:_MOST_COMPARED], key=functools.partial(distance, entry))
                candidates.remove(chosen)
                found[entry["key"]] = left.pop(chosen["key"])
    return found


def _called(entry: Entry) -> tuple[str, ...]:
    return (entry["class"], entry["role"], *(json.dumps(entry[name], sort_keys=True) for name in ("labels", "seeds")))


def _name(entry: Entry) -> tuple[str, ...]:
    return entry["class"], entry["name"]


# -- why ----------------------------------------------------------------------------------------------


def _causes(
    before: Entry,
    now: Entry,
    nested_then: set[str],
    nested_now: set[str],
    left_out: Mapping[str, bool],
    files: Files,
) -> list[Cause]:
    old, new = dict(_leaves(before["configuration"], nested_then)), dict(_leaves(now["configuration"], nested_now))
    return [
        *_of_fields(old, new, left_out),
        *_of_versions(before.get("meaning"), now["meaning"]),
        *_of_data(before, now, files),
    ]


def _of_fields(old: Mapping[str, Any], new: Mapping[str, Any], left_out: Mapping[str, bool]) -> Iterator[Cause]:
    others: list[str] = []  # parts that are another class now: their fields say nothing
    for path in [*new, *(path for path in old if path not in new)]:
        if any(path.startswith(f"{part}.") for part in others) or _is_left_out(path, old, left_out):
            continue
        if (path in old) != (path in new) or old[path] != new[path]:
            part, _, name = path.rpartition(".")
            if name == "class":
                others.append(part)
                path, name = part, part.rpartition(".")[2]
                before, after = _text(old.get(f"{part}.class")), _text(new.get(f"{part}.class"))
            else:
                before, after = _text(old[path]) if path in old else "none", _text(new[path]) if path in new else "none"
            yield Cause(name, before, after, f"{path} {before} -> {after}")


def _is_left_out(path: str, old: Mapping[str, Any], left_out: Mapping[str, bool]) -> bool:
    for place, is_never_counted in left_out.items():
        if path == place or path.startswith(f"{place}."):
            return is_never_counted or path not in old
    return False


def _of_versions(before: Mapping[str, list[int]] | None, now: Mapping[str, list[int]]) -> Iterator[Cause]:
    for name, versions in now.items() if before is not None else ():
        old = (before or {}).get(name, versions)
        if old != versions:
            then, raised = ("+".join(map(str, found)) or "1" for found in (old, versions))
            yield Cause(f"version of {name}", then, raised, f"{name}'s version {then} -> {raised}")


def _of_data(before: Entry, now: Entry, files: Files) -> Iterator[Cause]:
    for name, digest in now["data"].items():
        old = before["data"].get(name, digest)
        if old != digest:
            said = _files_text(before.get("files", {}).get(name, ""), now["files"][name], files)
            yield Cause(f"content of {name}", old, digest, f"content of {name}{said}")


def _files_text(before: str, now: str, files: Files) -> str:
    """How many files differ and which, where both lists are known."""
    old, new = files(before), files(now)
    if old is None or new is None:
        return ""
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    shown = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    return f": {len(names)} of {len(new)} files differ ({shown})" if names else ""


def _classes(entry: Entry, known: Mapping[str, Entry]) -> set[str]:
    """Classes of the trials that one waits for: what they are made of is theirs."""
    return {known[key]["class"] for key in entry["upstream"] if key in known}


def _leaves(value: Any, nested: set[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a configuration as a manifest has it, by dotted path, down to nested trials."""
    if isinstance(value, Mapping):
        is_nested = bool(path) and value.get("class") in nested
        for name, part in value.items():
            if not is_nested or name == "class":
                yield from _leaves(part, nested, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
        for place, part in enumerate(value):
            yield from _leaves(part, nested, f"{path}.{place}")
    else:
        yield path, value


def _text(value: Any) -> str:
    said = "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if len(said) <= _LONGEST_VALUE:
        return said
    return f"{len(value)} values" if isinstance(value, list) else f"{said[:_LONGEST_VALUE]}..."
