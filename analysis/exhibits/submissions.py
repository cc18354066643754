"""All submissions of a study put together: an exhibit shows what a storage holds, not what was asked for last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.curves.panels import TRAINED
from analysis.positives.evidence import ROLES as POSITIVE_ROWS
from analysis.published.rotation import FULL_SCALE
from analysis.results import Entry, StudyResults, load_study
from orchestrator.store import Store
from trainables.api.names import BYOL_ALONE, MOCO_TRUNK, NO_AUGMENTATION, ROTATED

Manifest = Mapping[str, Any]
_MAIN_ROLES = (TRAINED, MOCO_TRUNK, ROTATED, NO_AUGMENTATION, BYOL_ALONE)
"""What a study is about: a submission counts once one of these is finished."""
_CHOICES = {
    "angles_of_rotations": "in two stages",
    "fine_tuned": "encoders trained along",
    "linear_probe": "linear probes",
    "transfer_images_kept": "test images of the transfer not left out",
}
"""Facts of submissions that made another choice than the thesis, or than the study by itself."""
_BY_THEMSELVES = POSITIVE_ROWS
"""Roles that a submission may ask for without the others of their table: each is a set of its own."""
_WITHIN_A_SET = ("augmentation", "range", "second", "second_range", "measure")
"""Labels that tell apart what is compared with one another, and so has to be of one submission."""
_Labels = tuple[tuple[str, str], ...]


def results_by_scale(store: Store, study: str) -> dict[str, StudyResults]:
    """What all submissions of a study have, by their scale; curves of two scales never stand in one set.

    Of each data set, region and sweep (or share of the masks; all ways to augment are one set) those cells are taken
    that the newest submission with a finished trained curve (or network on MoCo's trunk, or encoder without
    augmentation in both measures, or BYOL alone) asks for (without one, the newest at all), with the seeds that any
    submission gave them.
    """
    by_scale: dict[str, list[Manifest]] = {}
    for manifest in store.manifests():
        if manifest["study"] == study:
            by_scale.setdefault(_scale(manifest["facts"]), []).append(manifest)
    return {scale: _merged(store, manifests) for scale, manifests in by_scale.items()}


def _scale(facts: Mapping[str, str]) -> str:
    """The scale, and in which of its choices a submission is not the paper's: other epochs, a random start of what
    the thesis fine-tuned. A study that states no start leaves none to choose."""
    said = [facts.get("scale", "")]
    for name, words in (("num_epochs", "epochs"), ("segmentation_epochs", "epochs of segmentation")):
        if name in facts:
            said.append(f"{facts[name]} {words}")
    said += [words for name, words in _CHOICES.items() if name in facts]
    start = facts.get("pretraining_start")
    if said[0] == FULL_SCALE and start is not None and not start.startswith("released"):
        said.append(start or "unknown start")
    return ", ".join(said)


def _merged(store: Store, manifests: Sequence[Manifest]) -> StudyResults:
    """Of submissions, oldest first."""
    trials: dict[tuple[str, str, bool], Entry] = {}
    cards: dict[str, Any] = {}
    for manifest in manifests:
        trials |= {(entry["key"], entry["cell"], entry["named"]): entry for entry in manifest["trials"]}
        cards |= manifest.get("cards", {})
    found = load_study(store, {**manifests[-1], "trials": list(trials.values()), "cards": cards})
    cells = _cells(manifests, found)
    chosen = [entry for entry in trials.values() if not entry["named"] or entry["cell"] in cells]
    return StudyResults(store, {**found.manifest, "trials": chosen}, found.results, found.reasons)


def _cells(manifests: Sequence[Manifest], found: StudyResults) -> set[str]:
    """The cells that count, of every set of labels."""
    newest: dict[_Labels, set[str]] = {}
    with_trained: dict[_Labels, set[str]] = {}
    for manifest in manifests:
        for labels, entries in _by_labels(manifest).items():
            newest[labels] = {entry["cell"] for entry in entries}
            main = [entry for entry in entries if entry["role"] in (*_MAIN_ROLES, *_BY_THEMSELVES)]
            if main and _measures(main) == _measures(found.finished(main)):
                with_trained[labels] = newest[labels]
    return set().union(*(newest | with_trained).values())


def _measures(entries: Sequence[Entry]) -> set[str]:
    return {entry["labels"].get("measure", "") for entry in entries}


def _by_labels(manifest: Manifest) -> dict[_Labels, list[Entry]]:
    sets: dict[_Labels, list[Entry]] = {}
    for entry in manifest["trials"]:
        if entry["named"]:
            labels = {name: label for name, label in entry["labels"].items() if name not in _WITHIN_A_SET}
            if entry["role"] in _BY_THEMSELVES:
                labels["role"] = entry["role"]
            sets.setdefault(tuple(sorted(labels.items())), []).append(entry)
    return sets
