"""What a study of checkpoints has: how rightly each of them chooses, and what BYOL makes of it.

Shapes: A anchors, T tiles of an anchor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.cells import Cell, cells_of
from analysis.positives.evidence import pretrain_seed
from analysis.render.pictures import Pictures
from analysis.render.tile import Tile
from analysis.results import StudyResults
from trainables.api.names import (
    BY_TRACIN_PRETRAINED,
    BYOL_ALONE,
    CHOSEN_BY_COSINE,
    CHOSEN_BY_FEATURES,
    CHOSEN_BY_TRACIN,
    IMAGE_ID,
    SAMPLES_FILE,
    SUMMED,
)

WAYS = (CHOSEN_BY_TRACIN, CHOSEN_BY_COSINE, CHOSEN_BY_FEATURES)
TRAINED = (BYOL_ALONE, BY_TRACIN_PRETRAINED)
_SHOWN = (CHOSEN_BY_TRACIN, CHOSEN_BY_FEATURES)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What one checkpoint, or all together, did in one role, over the seeds of the pretraining."""

    role: str
    name: str
    cell: Cell

    @property
    def epoch(self) -> int | None:
        """None for all of them together, and for none."""
        found = re.fullmatch(r"epoch (\d+)", self.name)
        return int(found[1]) if found else None

    def by_seed(self, metric: str) -> dict[int, float]:
        """A value a pretraining; of several fine-tunings of one, that with its seed."""
        values = zip(self.cell.done, self.cell.values.get(metric, ()), strict=False)
        found = [(entry["seeds"], entry, value) for entry, value in values]
        if self.role in WAYS:
            return {int(seeds["choice_seed"]): value for seeds, _, value in found}
        return {
            pretrain_seed(entry): value
            for seeds, entry, value in found
            if int(seeds["model.finetune_seed"]) == pretrain_seed(entry)
        }

    @property
    def top_ks(self) -> list[int]:
        """How many were chosen, rising."""
        found = (re.fullmatch(r"precision/top_(\d+)", name) for name in self.cell.values)
        return sorted(int(match[1]) for match in found if match)


@dataclass(frozen=True, eq=False)
class CheckpointSet:
    """All checkpoints of one data set."""

    data: str
    checkpoints: Sequence[Checkpoint]
    results: StudyResults

    @property
    def card(self) -> Mapping[str, Any]:
        return self.results.card(self.data)

    @property
    def metric(self) -> str:
        """Of the fine-tunings: balanced accuracy, of findings the mean AUC."""
        reported = {name for each in self.of(*TRAINED) for name in each.cell.values}
        return "test/auc" if "test/auc" in reported and "test/bma" not in reported else "test/bma"

    def of(self, *roles: str) -> list[Checkpoint]:
        return [each for each in self.checkpoints if each.role in roles]

    def find(self, role: str, name: str) -> Checkpoint | None:
        return next((each for each in self.checkpoints if (each.role, each.name) == (role, name)), None)

    @property
    def last(self) -> int | None:
        """Epoch of the whole training."""
        return max((each.epoch for each in self.of(*WAYS) if each.epoch is not None), default=None)

    def chance(self) -> float | None:
        """Precision of drawing from the batch: the same for all ways, but for the batches of a seed."""
        means = [mean for each in self.of(*WAYS) if (mean := each.cell.mean("chance")) is not None]
        return sum(means) / len(means) if means else None


def checkpoint_sets(results: StudyResults) -> list[CheckpointSet]:
    """Every data set of a study, in the order of its manifest; early checkpoints first, then all of them together."""
    found: dict[str, list[Checkpoint]] = {}
    for cell in cells_of(results):
        if cell.role in (*WAYS, *TRAINED) and "checkpoint" in cell.labels:
            found.setdefault(cell.labels["data"], []).append(Checkpoint(cell.role, cell.labels["checkpoint"], cell))
    order = (*WAYS, *TRAINED)
    return [
        CheckpointSet(data, sorted(each, key=lambda c: (order.index(c.role), c.name == SUMMED, c.epoch or 0)), results)
        for data, each in found.items()
    ]


def choice_pictures(found: CheckpointSet) -> list[Pictures]:
    """The first anchors with what the whole training's model finds nearest, by TracIn and by features (Zeng et al.
    2023, Figure 2); nothing before both are there."""
    samples = []
    for way in _SHOWN:
        checkpoint = found.find(way, f"epoch {found.last}")
        done = checkpoint.cell.done if checkpoint else ()
        samples.append(found.results.samples(done[0]["key"], SAMPLES_FILE) if done else None)
    if any(each is None for each in samples):
        return []
    by_tracin, by_features = (each for each in samples if each is not None)
    if by_tracin[IMAGE_ID].tolist() != by_features[IMAGE_ID].tolist() or not len(by_tracin[IMAGE_ID]):
        return []
    rows = []
    for place, anchor in enumerate(by_tracin[IMAGE_ID]):
        for words, each in (("TracIn", by_tracin), ("features", by_features)):
            rows.append((f"{anchor}, by {words}", _tiles(each, place, words)))
    caption = (
        "Anchors, the first of a batch and not picked, with the three images of the batch that are nearest by TracIn "
        "and by the features of the same BYOL-pretrained model. Rows in pairs: above by TracIn, below by features. "
        "Green frame: the anchor's label; orange: another one."
    )
    return [Pictures("choices", f"What is chosen as an additional positive, {found.data}", caption, rows)]


def _tiles(samples: Mapping[str, Any], place: int, words: str) -> list[Tile]:
    titles = [f"anchor: {samples['labels_A'][place]}"]
    titles += [f"{rank}. by {words}: {label}" for rank, label in enumerate(samples["chosen_labels_AR"][place], 1)]
    return [Tile(title, tile_HWC) for title, tile_HWC in zip(titles, samples["tiles_ATHWC"][place], strict=True)]
