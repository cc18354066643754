"""Rotation curves with a known wave, spike and noise."""

from __future__ import annotations

import numpy as np
import polars as pl

GRID_5 = np.arange(0, 361, 5.0)
GRID_FINE = np.unique(np.concatenate([GRID_5, [a + d for a in (0, 90, 180, 270, 360) for d in (-1, 1)]]))
GRID_FINE = GRID_FINE[(GRID_FINE >= 0) & (GRID_FINE <= 360)]


def wave_curve(angles_deg, level=0.5, amplitude=0.02, peak_deg=20.0, spike=0.0, harmonics=()):
    """level + amplitude cos 4(θ - peak) + Σ (k, a_k, peak_k) + spike at multiples of 90 (360 is 0 again)."""
    theta = np.deg2rad(angles_deg)
    curve = level + amplitude * np.cos(4 * (theta - np.deg2rad(peak_deg)))
    for k, size, at in harmonics:
        curve = curve + size * np.cos(4 * k * (theta - np.deg2rad(at)))
    return curve + spike * (np.mod(angles_deg, 90) == 0)


def noisy(curve, num_images, rng, noise=0.01, spread=0.05):
    """[N, A]: the curve, a level of its own for each image, independent noise at each angle."""
    level = rng.normal(0, spread, (num_images, 1))
    return curve + level + rng.normal(0, noise, (num_images, len(curve)))


def frame(name, dice_NA, angles_deg, fields=("full",), binarisations=("otsu",), group="volume", mask_fraction=0.12):
    """Rows as a trial publishes them, with the curve's name."""
    num_images, num_angles = dice_NA.shape
    base = pl.DataFrame(
        {
            "curve": name,
            "image_id": np.repeat([f"image {i:02d}" for i in range(num_images)], num_angles),
            "group": group,
            "position": np.repeat(np.arange(num_images), num_angles),
            "angle_deg": np.tile(np.asarray(angles_deg, dtype=float), num_images),
            "dice": dice_NA.ravel(),
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


def study(num_images=16, angles_deg=GRID_5, seed=0, trained_amplitude=0.02, peaks=("otsu",), leave_out=(), noise=0.01):
    """All curves of a study: untrained waves of 0.02 at 0°, spikes that dip, but peak under ``peaks``."""
    rng = np.random.default_rng(seed)
    shapes = {"trained": {"level": 0.47, "amplitude": trained_amplitude, "peak_deg": 0.0}}
    for k in range(3):
        shapes[f"untrained seed {k}"] = {"level": 0.44 + 0.01 * k, "amplitude": 0.02 + 0.001 * (k - 1), "peak_deg": 0.0}
    shapes["fixed map"] = {"level": 0.52, "amplitude": 0.015, "peak_deg": 0.0}
    shapes["mask ceiling"] = {"level": 0.96, "amplitude": 0.004, "peak_deg": 0.0}
    shapes["intensity"] = {"level": 0.3, "amplitude": 0.006, "peak_deg": 45.0}
    parts = []
    for field in ("full", "circle"):
        for binarisation in ("otsu", "top_area", "soft"):
            sign = 1 if binarisation in peaks else -1
            for name, shape in shapes.items():
                spike = 0.04 if name == "mask ceiling" else 0.02 * sign
                curve = wave_curve(angles_deg, **shape, spike=spike)
                quiet = 0.1 if name in ("mask ceiling", "intensity") else 1.0
                dice = noisy(curve, num_images, rng, noise=noise * quiet, spread=0.0 if quiet < 1 else 0.05)
                if name not in leave_out:
                    parts.append(frame(name, np.clip(dice, 0, 1), angles_deg, (field,), (binarisation,)))
    return pl.concat(parts)
