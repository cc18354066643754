"""The report of any study of curves: a page for each data set and region, with all of its sweeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.bootstrap import Bootstrap
from analysis.cells import cells_of
from analysis.health import pretraining_data
from analysis.pages.evidence import NOT_GROUPING, CurveSet, curve_sets, judged, label_sets, sample_maps
from analysis.pages.page import GroupPage, write_page
from analysis.render.files import file_name
from analysis.results import Entry, StudyResults, load_study
from analysis.significance import Verdict
from orchestrator.store import Store
from trainables.api.names import START_FILE, label_values


def curve_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set and region of the study; returns page, figures and tables of each.

    One without a finished curve has a page that says what is missing. The family of the verdicts is
    every one that the study plans: all data sets, regions and sweeps.
    """
    results = load_study(store, manifest)
    sets = curve_sets(results, Bootstrap())
    verdicts = judged(results, sets)
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for labels in label_sets(results):
        groups.setdefault(_group(labels), _grouping(labels))
    written: list[Path] = []
    for group, labels in groups.items():
        members = [(found, verdicts[place]) for place, found in enumerate(sets) if _group(found.labels) == group]
        written += write_page(_page(results, labels, members), out_dir / file_name(*group))
    return written


def _group(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(label_values(_grouping(labels)))


def _grouping(labels: Mapping[str, str]) -> dict[str, str]:
    return {label: value for label, value in labels.items() if label not in NOT_GROUPING}


def _page(results: StudyResults, keys: Mapping[str, str], members: Sequence[tuple[CurveSet, Verdict]]) -> GroupPage:
    pretrainings = _pretrainings(results, keys)
    return GroupPage(
        name=" · ".join(label_values(keys)),
        manifest=results.manifest,
        card=results.manifest.get("cards", {}).get(keys.get("data", ""), {}),
        members=members,
        cells=cells_of(results, **keys),
        starts=_starts(results, pretrainings),
        history=pretraining_data({_seed_of(entry): results.history(entry["key"]) for entry in pretrainings}),
        samples={found.name: sample_maps(results, found) for found, _ in members},
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
