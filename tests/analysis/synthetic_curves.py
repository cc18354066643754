"""Curves over a sweep with a known wave, spike, slope and noise."""

from __future__ import annotations

import numpy as np
import polars as pl

from analysis.bootstrap import Bootstrap
from analysis.curves.panels import panels
from analysis.curves.sweep import SweepFacts
from analysis.resampling import Resampling
from analysis.rotation.fitted import fitted

ROTATION = SweepFacts("Rotation", "rotation angle", "°", 360.0, 0.0)
BLUR = SweepFacts("GaussianBlur", "standard deviation of the blur", " of the side", None, 0.0)
BRIGHTNESS = SweepFacts("Brightness", "brightness factor", "", None, 1.0)
GRID_5 = np.arange(0, 361, 5.0)
GRID_FINE = np.unique(np.concatenate([GRID_5, [a + d for a in (0, 90, 180, 270, 360) for d in (-1, 1)]]))
GRID_FINE = GRID_FINE[(GRID_FINE >= 0) & (GRID_FINE <= 360)]
UNTRAINED_SEEDS = 3
BOOTSTRAP = Bootstrap(300)


def wave_curve(angles_deg, level=0.5, amplitude=0.02, peak_deg=20.0, spike=0.0, harmonics=()):
    """level + amplitude cos 4(θ - peak) + Σ (k, a_k, peak_k) + spike at multiples of 90 (360 is 0 again)."""
    theta = np.deg2rad(angles_deg)
    curve = level + amplitude * np.cos(4 * (theta - np.deg2rad(peak_deg)))
    for k, size, at in harmonics:
        curve = curve + size * np.cos(4 * k * (theta - np.deg2rad(at)))
    return curve + spike * (np.mod(angles_deg, 90) == 0)


def noisy(curve, num_images, rng, noise=0.01, spread=0.05):
    """[N, V]: the curve, a level of its own for each image, independent noise at each value."""
    level = rng.normal(0, spread, (num_images, 1))
    return curve + level + rng.normal(0, noise, (num_images, len(curve)))


def frame(role, dice_NV, values, seed="0", fields=("full",), binarisations=("otsu",), groups=None, mask_fraction=0.12):
    """Rows as a trial publishes them, with the curve's role and seed; by default every image is a person."""
    num_images, num_values = dice_NV.shape
    names = [f"person {i:02d}" for i in range(num_images)] if groups is None else groups
    base = pl.DataFrame(
        {
            "role": role,
            "seed": seed,
            "image_id": np.repeat([f"image {i:02d}" for i in range(num_images)], num_values),
            "group": np.repeat(names, num_values),
            "position": np.repeat(np.arange(num_images), num_values),
            "value": np.tile(np.asarray(values, dtype=float), num_images),
            "dice": dice_NV.ravel(),
            "mask_fraction": mask_fraction,
            "map_fraction": 0.2,
            "chance_dice": 2 * mask_fraction * 0.2 / (mask_fraction + 0.2),
            "all_ones_dice": 2 * mask_fraction / (1 + mask_fraction),
            "auprc": 0.3,
        }
    )
    return pl.concat(
        base.with_columns(pl.lit(field).alias("field_of_view"), pl.lit(binarisation).alias("binarisation"))
        for field in fields
        for binarisation in binarisations
    )


def shapes(trained_amplitudes=(0.02,)):
    """(role, seed) -> wave of a study: untrained encoders of amplitude 0.02 at 0°, controls with smaller ones."""
    found = {("trained", str(k)): {"level": 0.47, "amplitude": a} for k, a in enumerate(trained_amplitudes)}
    for k in range(UNTRAINED_SEEDS):
        found["untrained", str(k)] = {"level": 0.44 + 0.01 * k, "amplitude": 0.02 + 0.001 * (k - 1)}
    found["fixed map", "0"] = {"level": 0.52, "amplitude": 0.015}
    found["mask", "0"] = {"level": 0.96, "amplitude": 0.004}
    found["intensity", "0"] = {"level": 0.3, "amplitude": 0.006, "peak_deg": 45.0}
    return {key: {"peak_deg": 0.0} | shape for key, shape in found.items()}


def study(
    num_images=16, angles_deg=GRID_5, seed=0, trained_amplitudes=(0.02,), peaks=("otsu",), leave_out=(), noise=0.01,
    groups=None, binarisations=("otsu", "top_area", "soft"),
):  # fmt: skip
    """All curves of a rotation: spikes that dip, but peak under ``peaks``; without the roles of ``leave_out``."""
    rng = np.random.default_rng(seed)
    parts = []
    for field in ("full", "kept"):
        for binarisation in binarisations:
            sign = 1 if binarisation in peaks else -1
            for (role, name), shape in shapes(trained_amplitudes).items():
                curve = wave_curve(angles_deg, **shape, spike=0.04 if role == "mask" else 0.02 * sign)
                quiet = 0.1 if role in ("mask", "intensity") else 1.0
                dice = noisy(curve, num_images, rng, noise=noise * quiet, spread=0.0 if quiet < 1 else 0.05)
                if role not in leave_out:
                    rows = np.clip(dice, 0, 1), angles_deg, name, (field,), (binarisation,), groups
                    parts.append(frame(role, *rows))
    return pl.concat(parts)


def people(panel, bootstrap=BOOTSTRAP):
    """The resamples of a panel whose groups are people."""
    return Resampling(panel.groups, bootstrap)


def fit(curves, bootstrap=BOOTSTRAP):
    """Panels of curves with every wave fitted."""
    return fitted(panels(curves), lambda panel: people(panel, bootstrap))
