"""``--plan --diff``: the plan of now against the newest submission of the study, in lines and for scripts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.cost_text import amount_text
from orchestrator.costs import UNITS, Amount, price_of
from orchestrator.difference import Difference, Entry, difference
from orchestrator.documents import submission_order
from orchestrator.inputs import KnownPart, recorded_digests
from orchestrator.manifest import entries_of
from orchestrator.plan import TO_RUN, Plan
from orchestrator.provenance import code_version
from orchestrator.store import DamagedResult, Store
from orchestrator.study import Manifest, Resources
from trainables.api.identity import Keys, left_out_of

_CODE_DIGITS = 7
_MOST_VALUES = 4


@dataclass(frozen=True)
class Since:
    """What has changed since a submission."""

    submitted_at: float
    scale: str
    is_same_scale: bool
    code_before: str
    code_now: str
    found: Difference
    values_before: Mapping[str, Collection[str]]
    """Seeds and labels that the study had."""
    values_now: Mapping[str, Collection[str]]
    """Those that it has."""

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        found = self.found
        return {
            "submitted_at": self.submitted_at,
            "is_same_scale": self.is_same_scale,
            "code_versions": [self.code_before, self.code_now],
            "unchanged": list(found.unchanged),
            "changes": [asdict(change) | {"why": change.text} for change in found.changes],
            "more": [entry["key"] for entry in found.more],
            "gone": [entry["key"] for entry in found.gone],
        }


def since_last(plan: Plan, store: Store, keys: Keys) -> Since | None:
    """Against the newest manifest of the study at its scale, else of any; None where there is none."""
    scale = plan.study.facts.get("scale", "")
    names = store.names(f"studies/{plan.study.name}")
    manifests = [manifest for name in names if (manifest := store.manifest(plan.study.name, name)) is not None]
    newest = max(manifests, key=lambda m: (_scale_of(m) == scale, submission_order(m)), default=None)
    if newest is None:
        return None
    known = {part.digests: part for p in plan.planned for part in p.trial.parts if part.digests}

    def files(digest: str) -> Mapping[str, str] | None:
        if digest in known:  # also where it is not in the store yet
            return keys.files(known[digest].part)
        try:
            return recorded_digests(KnownPart(None, "", digest), store) if digest else None
        except DamagedResult:
            return None

    left_out = {p.trial.key: left_out_of(p.trial.trainable) for p in plan.planned}
    before, now = newest["trials"], entries_of(plan, keys)
    found = difference(before, now, left_out, files)
    code = str(newest.get("provenance", {}).get("code_version", "unknown"))
    is_same_scale = _scale_of(newest) == scale
    facts = newest["submitted_at"], _scale_of(newest), is_same_scale, code, code_version()
    return Since(*facts, found, _values(before), _values(now))


def since_lines(since: Since | None, plan: Plan, resources: Resources) -> list[str]:
    """For people."""
    if since is None:
        return ["no earlier submission of this study is here: all of it is new"]
    at = time.strftime("%d %b %H:%M", time.localtime(since.submitted_at))
    scale = "" if since.is_same_scale else f" at scale {since.scale}, as there is none at this one"
    before, now = (_short(code) for code in (since.code_before, since.code_now))
    code = f"code {before}" if before == now else f"code {before} -> {now}; code alone changes no key"
    lines = [f"since the submission of {at}{scale} ({code})"]
    for change in since.found.changes:
        hanging = f"; and {len(change.dependents)} that hang on them" if change.dependents else ""
        cost = _cost_text(plan, resources, {*change.keys, *change.dependents})
        lines.append(f"  {len(change.keys)} {change.kind}: {change.text}{hanging}{cost}")
    if more := since.found.more:
        cost = _cost_text(plan, resources, {entry["key"] for entry in more})
        lines.append(f"  {len(more)} trials more{_values_text(more, since.values_before)}{cost}")
    if gone := since.found.gone:
        lines.append(f"  {len(gone)} are gone{_values_text(gone, since.values_now)}")
    return [*lines, f"  {len(since.found.unchanged)} as before"]


def _scale_of(manifest: Manifest) -> str:
    return str(manifest.get("facts", {}).get("scale", ""))


def _short(code: str) -> str:
    sha, plus, rest = code.partition("+")
    return sha[:_CODE_DIGITS] + plus + rest


def _cost_text(plan: Plan, resources: Resources, keys: Collection[str]) -> str:
    """What these have still to compute; nothing where they have nothing to."""
    seconds = dict.fromkeys(UNITS, 0.0)
    for p in plan.planned:
        if p.trial.key in keys and p.state in TO_RUN:
            price = price_of(p.trial.trainable.uses_gpu, plan, resources)
            seconds[price.unit] += (p.estimated_s or 0.0) * price.times
    said = [f"+{amount_text(Amount(s, s, s), unit)}" for unit, s in seconds.items() if s]
    return f"   {' '.join(said)}" if said else ""


def _values(entries: Iterable[Entry]) -> dict[str, dict[str, None]]:
    """Seeds and labels of trials with their values, in their order; a seed by its own name, wherever it lies."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        for path, value in {**entry["seeds"], **entry["labels"]}.items():
            found.setdefault(path.rpartition(".")[2], {})[str(value)] = None
    return found


def _values_text(entries: Sequence[Entry], others: Mapping[str, Collection[str]]) -> str:
    """Which seeds and labels these have that the others have not; else of which classes they are."""
    own = {name: [v for v in values if v not in others.get(name, ())] for name, values in _values(entries).items()}
    said = [f"{name} {_few(values)}" for name, values in own.items() if values]
    classes = Counter(entry["class"] for entry in entries)
    return f": {'; '.join(said)}" if said else f": {_few([f'{n} {kind}' for kind, n in classes.items()])}"


def _few(values: Sequence[str]) -> str:
    return ", ".join(values[:_MOST_VALUES]) + (", ..." if len(values) > _MOST_VALUES else "")
