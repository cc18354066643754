"""A store with the trials of a study of curves, published through the store's own methods, and its manifest."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import polars as pl
from synthetic_curves import BLUR, ROTATION, frame, noisy, study

from orchestrator.store import Failure, Result, Store
from trainables.api.names import CURVE_FILE, SAMPLES_FILE, START_FILE, SWEEP_FILE

MADE = {"device": "cpu", "cpu": "AMD EPYC", "threads": "1"}
MNI152 = {"name": "mni152", "counts": {"train": 96, "val": 16}, "num_groups": 9, "split": "whole slabs held out",
          "licence": "ICBM licence <free & open>", "groups": "slabs of one volume"}  # fmt: skip
BRATS = {"name": "brats", "counts": {"train": 37, "val": 5}, "num_groups": 42, "split": "by patient",
         "licence": "BraTS 2020", "groups": "patients"}  # fmt: skip
RANDOM_START = "random start, pretrain_seed {seed}: no pretrained weights were used"
BLUR_VALUES = np.array([0.0, 0.01, 0.02, 0.04, 0.06])


def labels(data="mni152", region="white_matter", sweep="rotation", **more):
    return {"data": data, "region": region, "sweep": sweep} | more


class FabricatedStudy:
    """Publishes results as trials do, and writes the manifest that names them."""

    def __init__(self, folder, cards=None):
        self.folder, self.store, self.trials = folder, Store(str(folder / "results")), []
        self.manifest = {
            "study": "toy_curves",
            "question": "Is the <90°> period learnt by the encoder?",
            "facts": {"scale": "laptop", "pretraining_start": "released weights (asked_for.pth.tar)"},
            "cards": {card["name"]: card for card in (cards or [MNI152])},
            "command": "python studies/toy_curves.py --scale laptop",
            "provenance": {"date": "2025-01-01", "git": "0123abc"},
            "trials": self.trials,
        }

    def add(self, key, role="", given=None, seeds=None, *, upstream=(), files=None, history=(), made=None, metrics=None,
            named=True, configuration=None):  # fmt: skip
        """A trial of the manifest; it has a result where ``files`` are given: path -> a function that writes there."""
        given = given or {}
        self.trials.append(
            {
                "key": key, "name": " · ".join([*given.values(), key]), "class": "Toy", "upstream": list(upstream),
                "named": named, "role": role, "labels": given, "cell": json.dumps([role, sorted(given.items())]),
                "seeds": seeds or {}, "data": {}, "configuration": configuration or {"class": "Toy", "num_samples": 10},
            }
        )  # fmt: skip
        if files is not None:
            self.publish(key, files, history, made or MADE, metrics or {})
        return key

    def publish(self, key, files, history=(), made=MADE, metrics=None):
        """The result of a trial that the manifest has."""
        out = self.folder / "out" / key
        shutil.rmtree(out, ignore_errors=True)
        (out / "artifacts").mkdir(parents=True)
        for name, write in files.items():
            write(out / name)
        uploaded = self.store.upload(out, f"trials/{key}/published/t")
        segments = [self.store.write_segment(key, "001-00001", [list(row) for row in history])] if history else []
        assert self.store.publish(
            Result(key, metrics or {}, uploaded, segments, 1.0, 2.0, 1.0, 1, 0.0, dict(made), "t")
        )

    def fail(self, key, kind, message):
        self.store.record_failure(key, Failure(kind, message, "", 1, 0.0))

    def pretraining(self, seed, start=RANDOM_START, *, is_done=True, made=None):
        """A training that is only held in the fields of others."""
        key = f"moco-{seed}"
        if key in {entry["key"] for entry in self.trials}:
            return key
        files = {START_FILE: writer(json.dumps({"summary": start.format(seed=seed)}).encode())}
        history = [["train/loss", step, 5.0 / step, 1000] for step in range(1, 5)]
        history += [["train/embedding_std", step, 0.08, 1000] for step in range(1, 5)]
        return self.add(key, seeds={"pretrain_seed": seed}, files=files if is_done else None, history=history,
                        made=made, named=False)  # fmt: skip

    def curve(self, rows, sweep, given, role, seed, *, samples=None, **more):
        """A curve of ``rows`` as the trial publishes them."""
        key = f"{role}-{seed}-{'-'.join(given.values())}".replace(" ", "_")
        files = {
            CURVE_FILE: rows.drop("role", "seed").write_parquet,
            SWEEP_FILE: writer(json.dumps(asdict(sweep)).encode()),
        }
        if samples is not None:
            files[SAMPLES_FILE] = lambda path: np.savez(path, **samples)
        path = "encoder.pretrain_seed" if role in ("trained", "fixed map") else "encoder.init_seed"
        seeds = {path: int(seed), "images.selection_seed": 0} if role not in ("mask", "intensity") else {}
        metrics = {"val/interpretability": float(rows["dice"].mean())}
        return self.add(key, role, given, seeds, files=files, metrics=metrics, **more)

    def curves(self, rows, sweep, given, *, samples=True):
        """Every role and seed of ``rows``; the trained ones hold their pretrainings."""
        for (role, seed), part in rows.partition_by("role", "seed", as_dict=True, maintain_order=True).items():
            upstream = [self.pretraining(int(seed))] if role in ("trained", "fixed map") else []
            shown = sample_maps(seed=int(seed)) if samples and role in ("trained", "untrained") else None
            if shown is not None and sweep.period is None:
                shown["values"] = np.array([0.0, 0.06])
            self.curve(part, sweep, given, role, seed, samples=shown, upstream=upstream)


def writer(content):
    return lambda path: path.write_bytes(content)


def blur(
    num_images=12,
    slopes=(-3.0, -3.1, -2.9),
    untrained=(-1.0, -1.1, -0.9),
    noise=0.002,
    groups=None,
    seed=0,
    rules=("otsu",),
):
    """All curves of a blur sweep: every role with its slope in Dice per side."""
    rng = np.random.default_rng(seed)
    found = [("trained", str(k), slope) for k, slope in enumerate(slopes)]
    found += [("untrained", str(k), slope) for k, slope in enumerate(untrained)]
    found += [("fixed map", "0", 0.0), ("mask", "0", 0.0), ("intensity", "0", -0.5)]
    parts = []
    for field in ("full", "kept"):
        for rule in rules:
            for role, name, slope in found:
                dice = noisy(0.6 + slope * BLUR_VALUES, num_images, rng, noise=noise, spread=0.03)
                dice[:, 0] = 0.93  # both views are the same image
                parts.append(frame(role, dice, BLUR_VALUES, name, (field,), (rule,), groups))
    return pl.concat(parts)


def rotation_and_blur(folder, **changes):
    """A finished study of 12 people: three seeds an arm, a wave and a slope that training makes larger."""
    made = FabricatedStudy(folder, [BRATS])
    wave = {"num_images": 12, "trained_amplitudes": (0.039, 0.04, 0.041), "noise": 0.003} | changes
    made.curves(study(**wave), ROTATION, labels("brats", "tumour"))
    made.curves(blur(rules=("otsu", "soft")), BLUR, labels("brats", "tumour", "blur"))
    return made


def sample_maps(num_images=3, size=48, seed=0):
    """Contents of ``samples.npz``: images with maps at 0° and 95°."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    disc = (x**2 + y**2 < 0.16).astype(float)
    mask = ((x - 0.1) ** 2 + (y + 0.05) ** 2 < 0.02).astype(np.uint8)
    images = np.stack([np.clip((disc * 0.6 + mask * 0.3 + 0.05 * k) * 255, 0, 255) for k in range(num_images)])
    maps = np.stack([[(mask + disc * 0.3) * rng.random((size, size)) for _ in range(2)] for _ in range(num_images)])
    return {
        "image_id": np.array([f"image {i:02d}" for i in range(num_images)]),
        "images_KHW": images.astype(np.uint8),
        "masks_KHW": np.stack([mask] * num_images),
        "values": np.array([0.0, 95.0]),
        "views_KVHW": np.stack([[image / 255, np.rot90(image) / 255] for image in images]).astype(np.float32),
        "view_maps_KVHW": np.stack([[m[0], np.rot90(m[1])] for m in maps]).astype(np.float32),
        "maps_KVHW": maps.astype(np.float32),
    }
