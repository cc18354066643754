"""A curve in two stages against the full grid, on one encoder: passes, width of the interval, and whether both agree.

The full curve has every degree; the other one the angles that a pilot chose. What a reader takes from either is the
complex coefficient of the 90° wave with its confidence region over images: its radius is compared, and how far both
coefficients are apart. The pilot's passes count.

    python benchmarks/curve.py [--images 24] [--samples 20] [--size 48] [--epochs 5] [--json FILE]

On two cores some ten minutes, nearly all of them for the full grid. ``--epochs 0`` explains an untrained encoder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.arrays import Complexes
from analysis.rotation.wave import fit_wave, is_multiple_of_90
from analysis.significance import block_interval
from orchestrator.options import StudyOptions
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.submission import submit
from trainables.api.identity import FileDigests, Keys
from trainables.api.names import BINARISATION, CURVE_FILE, DICE, FIELD_OF_VIEW, GRID_FILE, IMAGE_ID, VALUE
from trainables.data.mni152 import MNI152, MNI152Tissue
from trainables.interpretability.curve import InterpretabilityCurve
from trainables.interpretability.grid import GridChoice
from trainables.interpretability.selection import ImageChoice
from trainables.interpretability.two_stage import CurvePilot, TwoStageCurve, on_grid, passes
from trainables.models.sources import EncoderSource, Untrained
from trainables.saliency.gradients import SmoothGrad
from trainables.ssl.moco import MoCo
from trainables.sweeps import Rotation


def encoder_of(images: MNI152, num_epochs: int) -> EncoderSource:
    """A ResNet-18 pretrained for so many epochs on the packaged slices."""
    if num_epochs == 0:
        return Untrained(images, "resnet18")
    return MoCo(
        images,
        backbone="resnet18",
        num_epochs=num_epochs,
        batch_size=32,
        queue_size=64,
        batch_norm_groups=4,
        learning_rate=0.06,
        key_momentum=0.99,
    )


def coefficients(curve_file: Path) -> Complexes:
    """Of each image, from the interpolated angles, as the reports take it [N]."""
    frame = pl.read_parquet(curve_file)
    rows = frame.filter((pl.col(FIELD_OF_VIEW) == "full") & (pl.col(BINARISATION) == frame[BINARISATION][0]))
    rows = rows.sort(IMAGE_ID, VALUE)
    angles = np.unique(rows[VALUE].to_numpy())
    dice_NA = rows[DICE].to_numpy().reshape(-1, len(angles))
    interpolated = ~is_multiple_of_90(angles)
    return fit_wave(dice_NA[:, interpolated], angles[interpolated]).coefficients()


def radius_of(coefficients_N: Complexes) -> float:
    """Of the confidence region of their mean, each image a block of its own."""
    interval = block_interval(coefficients_N, np.arange(len(coefficients_N)))
    assert interval is not None
    return interval.radius


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24, help="how many of the packaged slices")
    parser.add_argument("--samples", type=int, default=20, help="noise samples of the full curve")
    parser.add_argument("--size", type=int, default=48, help="side of the images in pixels")
    parser.add_argument("--epochs", type=int, default=5, help="of the encoder's pretraining")
    parser.add_argument("--storage", type=Path, help="where results are kept (default: nowhere)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(options, options.storage or Path(folder))
    for name, value in figures.items():
        print(f"{name:34} {value:.4g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def compare(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Measure both curves and hold them against each other."""
    images = MNI152(image_size_px=options.size)
    full = InterpretabilityCurve(
        MNI152Tissue(images, "white_matter"),
        encoder_of(images, options.epochs),
        SmoothGrad(options.samples),
        Rotation(),
        tuple(map(float, range(361))),
        ImageChoice(options.images),
    )
    pilot = CurvePilot.of(full)
    trials: dict[str, Any] = {"full": full, "two stages": TwoStageCurve.of(full, pilot)}
    study = Study("curve_benchmark", "Are both curves one?", trials)
    if code := submit(StudyOptions(storage=str(folder / "results"), cache_dir=folder / "cache"), lambda: study):
        raise SystemExit(code)
    store, keys = Store(str(folder / "results")), Keys(FileDigests())
    fetched = {name: store.fetch(keys.key(trial), folder / "fetched") for name, trial in trials.items()}
    found = {name: coefficients(result / CURVE_FILE) for name, result in fetched.items()}
    radii = {name: radius_of(values_N) for name, values_N in found.items()}
    chosen = GridChoice.read(fetched["two stages"] / GRID_FILE)
    of_pilot = sum(map(passes, pilot.measured))
    of_curve = passes(on_grid(full, chosen))
    apart = abs(found["full"].mean() - found["two stages"].mean())
    return {
        "passes of the full grid": passes(full),
        "passes of the pilot": of_pilot,
        "passes of the second stage": of_curve,
        "times fewer passes": passes(full) / (of_pilot + of_curve),
        "angles": float(len(chosen.angles_deg)),
        "coefficient, full": float(abs(found["full"].mean())),
        "coefficient, two stages": float(abs(found["two stages"].mean())),
        "apart, share of the full radius": float(apart / radii["full"]),
        "radius, two stages over full": radii["two stages"] / radii["full"],
        "radius, at most by the pilot": chosen.widening,
    }


if __name__ == "__main__":
    main()
