"""Reports that are made in a second."""

import altair as alt
import pytest

from analysis import health
from analysis.bootstrap import Bootstrap
from analysis.curves import figures as curve_figures
from analysis.pages import page as curve_page
from analysis.pages import report
from analysis.render import page
from analysis.rotation import figures as wave_figures


@pytest.fixture
def plain(monkeypatch):
    """Pages without drawings and with few resamples: what is said, in a second."""
    for module, name in ((curve_figures, "_small"), (wave_figures, "_plane"), (health, "_panel")):
        monkeypatch.setattr(module, name, lambda *_: alt.Chart(alt.NamedData("none")).mark_point())
    monkeypatch.setattr(curve_figures, "_column", lambda *_: [alt.Chart(alt.NamedData("none")).mark_point()])
    monkeypatch.setattr(curve_page, "write_figures", lambda figures, folder: {f.name: "<svg/>" for f in figures})
    monkeypatch.setattr(page, "_library", lambda: "")
    monkeypatch.setattr(report, "Bootstrap", lambda: Bootstrap(100))
