"""The report of any study of curves: a page for each data set and region, with all of its sweeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.cells import cells_of, label_values
from analysis.curves.evidence import NOT_GROUPING, CurveSet, curve_sets, num_planned_tests
from analysis.curves.page import GroupPage, write_page
from analysis.curves.samples import Samples
from analysis.health import pretraining_data
from analysis.resampling import Bootstrap
from analysis.results import Entry, StudyResults, load_study
from analysis.significance import Verdict, verdicts
from orchestrator.store import Store
from trainables.api.names import SAMPLES_FILE, START_FILE


def curve_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set and region that has a curve; returns page, figures and tables of each.

    The family of Holm's correction is every verdict that the study plans: all data sets, regions and sweeps.
    """
    results = load_study(store, manifest)
    sets = curve_sets(results, Bootstrap())
    compared = {place: found.comparison for place, found in enumerate(sets)}
    judged = verdicts(compared, num_planned_tests(results, sets))
    by_group: dict[str, list[tuple[CurveSet, Verdict]]] = {}
    for place, found in enumerate(sets):
        by_group.setdefault(_group(found.labels), []).append((found, judged[place]))
    written: list[Path] = []
    for name, members in by_group.items():
        written += write_page(_page(results, name, members), out_dir / _file_name(name))
    return written


def _group(labels: Mapping[str, str]) -> str:
    return " · ".join(label_values(_grouping(labels)))


def _grouping(labels: Mapping[str, str]) -> dict[str, str]:
    return {label: value for label, value in labels.items() if label not in NOT_GROUPING}


def _file_name(name: str) -> str:
    return "-".join("".join(c if c.isalnum() or c in "_." else "_" for c in part) for part in name.split(" · "))


def _page(results: StudyResults, name: str, members: Sequence[tuple[CurveSet, Verdict]]) -> GroupPage:
    keys = _grouping(members[0][0].labels)
    pretrainings = _pretrainings(results, keys)
    return GroupPage(
        name=name,
        manifest=results.manifest,
        card=results.manifest.get("cards", {}).get(keys.get("data", ""), {}),
        members=members,
        cells=cells_of(results, **keys),
        starts=_starts(results, pretrainings),
        history=pretraining_data({_seed_of(entry): results.history(entry["key"]) for entry in pretrainings}),
        samples={found.name: _samples(results, found) for found, _ in members},
    )


def _pretrainings(results: StudyResults, labels: Mapping[str, str]) -> list[Entry]:
    """The finished trainings that the trained curves hold in a field, each once."""
    wanted = {key for entry in results.entries(role="trained", **labels) for key in entry["upstream"]}
    by_key = {entry["key"]: entry for entry in results.manifest["trials"] if entry["key"] in wanted}
    return results.finished(by_key.values())


def _seed_of(entry: Entry) -> str:
    return ",".join(str(value) for value in entry.get("seeds", {}).values()) or entry["name"]


def _starts(results: StudyResults, pretrainings: Sequence[Entry]) -> list[str]:
    """What the pretrainings say of their own start; the command line only says what was asked for."""
    found = []
    for entry in pretrainings:
        path = results.folder(entry["key"]) / START_FILE
        if path.exists():
            found.append(str(json.loads(path.read_text())["summary"]))
    return list(dict.fromkeys(found))


def _samples(results: StudyResults, found: CurveSet) -> dict[str, Samples]:
    """Role -> the sample maps of its first finished curve."""
    shown: dict[str, Samples] = {}
    for role in ("trained", "untrained"):
        entries = results.finished(results.entries(role=role, **found.labels))
        samples = results.samples(entries[0]["key"], SAMPLES_FILE) if entries else None
        if samples is not None:
            shown[role] = samples
    return shown
