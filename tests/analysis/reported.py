"""Reports of fabricated studies, and their parts."""

import re

import numpy as np
from synthetic_curves import ROTATION, study
from synthetic_study import BRATS, FabricatedStudy, labels

from analysis.pages import report

ANGLES = np.arange(0, 361, 15.0)


def reported(made, folder):
    """Name of the page's folder -> its HTML."""
    paths = report.curve_report(made.store, made.manifest, folder)
    return {path.parent.name: path.read_text() for path in paths if path.name == "report.html"}


def only(pages):
    (html,) = pages.values()
    return html


def section(html, name):
    return re.search(rf"<h2>{name}</h2>\n(.*?)</section>", html, re.S)[1]


def small(num_trained=2, num_images=4, **changes):
    """A rotation on a coarse grid, quickly made."""
    amplitudes = tuple(0.03 + 0.001 * k for k in range(num_trained))
    shape = {
        "num_images": num_images,
        "angles_deg": ANGLES,
        "trained_amplitudes": amplitudes,
        "binarisations": ["otsu"],
    }
    return study(**(shape | changes))


def answer_of(folder, rows, sweep=ROTATION, cards=(BRATS,), data="brats"):
    made = FabricatedStudy(folder, list(cards))
    made.curves(rows, sweep, labels(data, "tumour", sweep.name.lower()), samples=False)
    html = only(reported(made, folder / "out"))
    return re.search(r'<p class="answer">(.*?)</p>', html)[1], html


def reported_one(folder, rows, sweep):
    made = FabricatedStudy(folder)
    made.curves(rows, sweep, labels(sweep=sweep.name), samples=False)
    return reported(made, folder / "out")
