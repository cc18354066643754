"""The report of the rotation study from its store: one folder a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.resampling import Bootstrap
from analysis.results import FinishedTrial, StudyResults, curve_frame, load_study, metric_history, samples_of
from analysis.rotation.page import DatasetDescription, MissingTrial, ReportInputs, Setup, write_report
from analysis.rotation.panels import SEPARATOR, TRAINED, UNTRAINED_PREFIX
from orchestrator.store import Store

_PRETRAINING = "MoCo"


def rotation_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the report of every data set of the study that has a curve; returns report, figures and tables of each.

    The manifest's facts hold, for a data set NAME, ``NAME.counts`` (JSON), ``NAME.split``, ``NAME.licence``,
    ``NAME.one_volume`` and ``NAME.block_length``, besides ``scale`` and ``pretraining_start``.
    """
    results = load_study(store, manifest)
    written: list[Path] = []
    for dataset in dict.fromkeys(name.partition(SEPARATOR)[0] for name in _named(manifest)):
        curves = _curves(results, dataset)
        if not curves:
            continue
        paths = write_report(_inputs(store, results, dataset, curves), out_dir / dataset)
        written += [paths.report_html, paths.figures, paths.tables]
    return written


def _inputs(store: Store, results: StudyResults, dataset: str, curves: Mapping[str, FinishedTrial]) -> ReportInputs:
    manifest, facts = results.manifest, results.manifest["facts"]
    expected = [name.partition(SEPARATOR)[2] for name in _named(manifest) if name.startswith(dataset + SEPARATOR)]
    pretraining = results.finished.get(f"{dataset}{SEPARATOR}{TRAINED} / {_PRETRAINING}")
    history = {} if pretraining is None else {"history": metric_history(store, pretraining.result)}
    missing = [
        MissingTrial(name.partition(SEPARATOR)[2], reason)
        for name, reason in results.missing.items()
        if name.startswith(dataset + SEPARATOR)
    ]
    configurations = {name: trial.entry["configuration"] for name, trial in curves.items()}
    setup = Setup(
        study=manifest["study"],
        question=manifest["question"],
        scale=facts["scale"],
        dataset=DatasetDescription(
            dataset,
            json.loads(facts[f"{dataset}.counts"]),
            facts[f"{dataset}.split"],
            facts[f"{dataset}.licence"],
            facts[f"{dataset}.one_volume"] == "True",
        ),
        pretraining_start=facts["pretraining_start"] if pretraining is None else _start_of(pretraining),
        configurations=configurations,
        provenance=manifest["provenance"],
        missing=missing,
        commands=[manifest["command"]],
        binarisation=next(iter(configurations.values()))["binarisations"][0],
        bootstrap=Bootstrap(block_length=int(facts[f"{dataset}.block_length"])),
        expected_curves=expected,
        **history,
    )
    shown = [name for name in (TRAINED, f"{UNTRAINED_PREFIX}0") if name in curves]
    samples = {name: samples_of(curves[name]) for name in shown}
    return ReportInputs(setup, curve_frame(curves), {name: s for name, s in samples.items() if s is not None})


def _start_of(pretraining: FinishedTrial) -> str:
    """What the pretraining says of its own start; the command line only says what was asked for."""
    return str(json.loads((pretraining.folder / "artifacts" / "provenance.json").read_text())["summary"])


def _named(manifest: Mapping[str, Any]) -> list[str]:
    return [entry["name"] for entry in manifest["trials"] if entry["named"]]


def _curves(results: StudyResults, dataset: str) -> dict[str, FinishedTrial]:
    return {
        name.partition(SEPARATOR)[2]: trial
        for name, trial in results.finished.items()
        if name.startswith(dataset + SEPARATOR) and trial.entry["named"]
    }
