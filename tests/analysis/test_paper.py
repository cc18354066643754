"""The papers' exhibits from a storage: several data sets, submissions and scales, and what is missing."""

import html
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from synthetic_curves import ROTATION, study
from synthetic_study import BRATS, FabricatedStudy, labels, writer

from analysis import __main__ as main
from analysis import paper
from analysis.bootstrap import Bootstrap
from analysis.curves.figures import MEAN
from analysis.exhibits.rotation import curve_of
from analysis.exhibits.submissions import results_by_scale
from analysis.pages.evidence import curve_sets
from analysis.render import page
from analysis.render.style import Figure
from trainables.api.names import CURVE_FILE, SWEEP_FILE

ANGLES = np.arange(0, 361, 15.0)
CARDS = [BRATS | {"name": name} for name in ("brats", "kvasir", "lung_mask")]
BRATS_TUMOUR, BRATS_CORE, KVASIR = labels("brats", "tumour"), labels("brats", "core"), labels("kvasir", "polyp")


class Storage:
    """Submissions of the rotation study in one store."""

    def __init__(self, folder):
        self.made, self.count = FabricatedStudy(folder, CARDS), 0
        self.store = self.made.store

    def submit(self, *sets, scale="full", config="", first_seed=0, is_done=True, facts=()):
        """``sets``: (labels, rows). ``config`` tells configurations apart that have the same labels."""
        self.made.trials.clear()
        for given, rows in sets:
            for (role, seed), part in rows.partition_by("role", "seed", as_dict=True, maintain_order=True).items():
                self._add(given, role, int(seed) + first_seed, part if is_done else None, f"{scale}{config}")
        self.count += 1
        document = self.made.manifest | {"study": "rotation_period", "submitted_at": float(self.count)}
        document["facts"] = {"scale": scale, "pretraining_start": "released weights (moco.pth.tar)", **dict(facts)}
        self.store.write_document(f"studies/rotation_period/{self.count}.json", document)

    def _add(self, given, role, seed, rows, config):
        key = f"{role}-{seed}-{'-'.join(given.values())}-{config}".replace(" ", "_")
        files = None
        if rows is not None and self.store.result(key) is None:
            files = {
                CURVE_FILE: rows.drop("role", "seed").write_parquet,
                SWEEP_FILE: writer(json.dumps(asdict(ROTATION)).encode()),
            }
        self.made.add(key, role, given, {"encoder.seed": seed}, files=files)
        self.made.trials[-1]["cell"] = f"{role} {sorted(given.items())} {config}"

    def levels(self, scale="full"):
        """(data, region) -> mean Dice of each seed of the trained encoders."""
        sets = curve_sets(results_by_scale(self.store, "rotation_period")[scale], Bootstrap(20))
        return {
            (found.labels["data"], found.labels["region"]): [
                round(float(dice.mean()), 3) for dice in found.headline_panel.curves["trained"].dice_SNV
            ]
            for found in sets
        }


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path)


@pytest.fixture
def written(tmp_path, monkeypatch, storage):
    """A function that writes the paper without drawing: the page's sections by title, and the figures by name."""
    drawn = []
    monkeypatch.setattr(page, "_library", lambda: "")
    monkeypatch.setattr(
        paper, "write_figures", lambda figures, folder: {f.name: "<svg/>" for f in figures if not drawn.append(f)}
    )

    def write():
        drawn.clear()
        document = paper.write_paper(storage.store, tmp_path / "paper").read_text()
        sections = dict(re.findall(r"<h2>(.*?)</h2>\n(.*?)</section>", document, re.S))
        assert len({f.name for f in drawn}) == len(drawn), "no figure overwrites another"
        return sections, {figure.name: figure for figure in drawn}

    return write


def command_for(named, sections):
    """The command below the list that names an exhibit."""
    lists = re.findall(r"<ul>(.*?)</ul><pre>(.*?)</pre>", sections[paper.MISSING], re.S)
    (command,) = [command for names, command in lists if f"<li>{html.escape(named)}</li>" in names]
    return html.unescape(command)


def rows(level=0.0, num_trained=1):
    """A rotation whose Dice lies ``level`` higher."""
    made = study(num_images=4, angles_deg=ANGLES, binarisations=["otsu"], trained_amplitudes=(0.03,) * num_trained)
    return made.with_columns((pl.col("dice") + level).clip(0, 1))


def drawn_level(figure):
    """Mean Dice of the trained curve that a figure holds."""
    found = [r["dice"] for data in figure.datasets.rows.values() for r in data
             if r.get("role") == "trained" and r.get("seed") == MEAN and "dice" in r]  # fmt: skip
    return float(np.mean(found))


def test_data_sets_and_regions_have_files_of_their_own_whichever_submission_computed_them(storage, written, tmp_path):
    storage.submit((BRATS_TUMOUR, rows()), (BRATS_CORE, rows(0.1)))
    storage.submit((KVASIR, rows(0.2)))
    sections, figures = written()
    # The thesis's figure is of the whole tumour.
    assert list(figures) == ["curve-brats-tumour-rotation", "curve-kvasir-polyp-rotation", "curve-brats-core-rotation"]
    tumour, kvasir, core = (drawn_level(figure) for figure in figures.values())
    assert core - tumour == pytest.approx(0.1, abs=0.01)
    assert kvasir - tumour == pytest.approx(0.2, abs=0.01)
    assert sections["Figure 5.6: Interpretability over rotation, BraTS"].count("<figure ") == 1
    assert sections["Figure 5.8: Interpretability over rotation, Kvasir-SEG"].count("<figure ") == 1
    beyond = sections["Figures 5.6 to 5.8: Interpretability over rotation, other data sets and regions"]
    assert beyond.count("<figure ") == 1
    assert not any("lung masks" in title for title in sections)
    assert command_for("Figure 5.7: Interpretability over rotation, lung masks", sections) == (
        "python studies/rotation_period.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets "
        f"lung_mask --storage {storage.store.uri}"
    )
    tables = {path.stem: pl.read_csv(path) for path in (tmp_path / "paper/tables").glob("published-*.csv")}
    names = ("brats-tumour", "brats-core", "kvasir-polyp")
    assert set(tables) == {f"published-{name}-rotation" for name in names}
    least = [tables[f"published-{name}-rotation"]["min"][0] for name in names]
    assert least == pytest.approx([least[0], least[0] + 0.1, least[0] + 0.2], abs=0.01)
    assert tables["published-kvasir-polyp-rotation"]["dataset"][0] == "kvasir"
    for table in tables.values():
        assert table["source"].to_list()[:2] == ["this study, full field of view", "this study, inscribed circle"]
        assert all("°" in angles for angles in table["maxima"]), "every field of view has its extrema"


def test_published_extrema_are_those_of_the_own_data_set(storage, written):
    storage.submit((BRATS_TUMOUR, rows()), (KVASIR, rows()))
    _, figures = written()
    brats, kvasir = figures.values()
    assert "extrema published for BraTS (solid: maxima" in brats.caption
    assert "extrema published for Kvasir-SEG (solid: maxima" in kvasir.caption
    found = results_by_scale(storage.store, "rotation_period")["full"]
    assert curve_of("lung_mask")(found) == []
    (alone,) = curve_of("kvasir")(found)
    assert "Kvasir-SEG" in alone.caption


def test_only_full_scale_bears_the_number_of_an_exhibit(storage, written):
    storage.submit((BRATS_TUMOUR, rows()), scale="laptop")
    sections, figures = written()
    assert command_for("Figure 5.6: Interpretability over rotation, BraTS", sections).startswith("python studies/")
    assert "Figure 5.6: Interpretability over rotation, BraTS" not in sections
    assert "<figure" in sections["At scale laptop, not Figure 5.6: Interpretability over rotation, BraTS"]
    assert not any(title.startswith("At scale laptop, not Figure 5.8") for title in sections)
    (table,) = [content for title, content in sections.items() if title.startswith("At scale laptop, not Section 5.3")]
    assert "(at scale laptop)" in table
    assert list(figures) == ["curve-brats-tumour-rotation-at-laptop"]
    storage.submit((BRATS_TUMOUR, rows(0.2)))
    sections, figures = written()
    assert "<figure" in sections["Figure 5.6: Interpretability over rotation, BraTS"]
    full, laptop = figures["curve-brats-tumour-rotation"], figures["curve-brats-tumour-rotation-at-laptop"]
    assert full.caption.startswith("At scale full. ")
    assert laptop.caption.startswith("At scale laptop. ")
    assert drawn_level(full) - drawn_level(laptop) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("facts", "says"),
    [({"pretraining_start": "random weights"}, "random weights"), ({"pretraining_start": ""}, "unknown start")],
)
def test_full_scale_from_a_random_start_is_not_the_papers(storage, written, facts, says):
    storage.submit((BRATS_TUMOUR, rows()), facts=facts)
    storage.submit((BRATS_TUMOUR, rows(0.1)), config="released")
    sections, figures = written()
    assert "<figure" in sections["Figure 5.6: Interpretability over rotation, BraTS"]
    assert "<figure" in sections[f"At scale full, {says}, not Figure 5.6: Interpretability over rotation, BraTS"]
    random, released = (drawn_level(figures[name]) for name in sorted(figures, key=lambda name: "at-full" not in name))
    assert released - random == pytest.approx(0.1, abs=0.01)


def test_full_scale_with_other_epochs_is_not_the_papers(storage, written):
    storage.submit((BRATS_TUMOUR, rows()), facts={"num_epochs": "2"})
    sections, figures = written()
    assert command_for("Figure 5.6: Interpretability over rotation, BraTS", sections).startswith("python studies/")
    assert "Figure 5.6: Interpretability over rotation, BraTS" not in sections
    assert "<figure" in sections["At scale full, 2 epochs, not Figure 5.6: Interpretability over rotation, BraTS"]
    assert "curve-brats-tumour-rotation" not in figures


def test_seeds_of_several_submissions_make_one_curve(storage, written):
    storage.submit((BRATS_TUMOUR, rows()))
    storage.submit((BRATS_TUMOUR, rows(0.1, 2).filter(pl.col("role") == "trained")), first_seed=1)
    first, second, third = storage.levels()["brats", "tumour"]
    assert (second - first, third - first) == (pytest.approx(0.1, abs=0.03), pytest.approx(0.1, abs=0.03))
    _, figures = written()
    assert "each of 3 trained encoders" in figures["curve-brats-tumour-rotation"].caption


def test_of_two_configurations_the_newest_that_is_finished_counts(storage):
    storage.submit((BRATS_TUMOUR, rows()), (KVASIR, rows()))
    (before,) = storage.levels()["brats", "tumour"]
    storage.submit((BRATS_TUMOUR, rows(0.2)), config="longer", is_done=False)
    assert storage.levels()["brats", "tumour"] == [before], "what is only asked for replaces nothing"
    storage.submit((BRATS_TUMOUR, rows(0.2)), config="longer")
    assert storage.levels() == {
        ("brats", "tumour"): [pytest.approx(before + 0.2, abs=0.01)],
        ("kvasir", "polyp"): [pytest.approx(before, abs=0.01)],
    }


def test_an_empty_storage_misses_everything(storage, written):
    sections, figures = written()
    assert list(sections) == [paper.MISSING]
    for exhibit in paper.EXHIBITS:
        named = f"{exhibit.number}: {exhibit.title}"
        if exhibit.command is None:
            assert named not in sections[paper.MISSING]
        else:
            assert command_for(named, sections) == f"{exhibit.command} --storage {storage.store.uri}"
    assert not any(isinstance(figure, Figure) for figure in figures.values())


def test_a_garbled_request_is_a_warning_and_an_exit_status(storage, tmp_path, capsys):
    storage.submit((BRATS_TUMOUR, rows()))
    assert main.report(storage.store.uri, tmp_path / "out") == 0
    (path,) = Path(storage.store.uri).glob("studies/*/*.json")
    path.write_bytes(path.read_bytes()[:50])
    capsys.readouterr()
    assert main.report(storage.store.uri, tmp_path / "out") == 1
    assert f"warning: {path} is garbled; submit its study again" in capsys.readouterr().err
