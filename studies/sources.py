"""What studies start from: the data set of a scale, facts for reports, and released weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.data.records import Dataset
    from trainables.models.released import ReleasedWeights


def default_dataset(scale: str) -> str:
    """The thesis's data set at full scale, else the packaged one."""
    return "brats" if scale == "full" else "mni152"


def dataset_facts(data: Dataset) -> dict[str, str]:
    """What every report says of a data set."""
    card = data.card()
    return {
        f"{card.name}.counts": json.dumps(dict(card.counts)),
        f"{card.name}.split": card.split,
        f"{card.name}.licence": card.licence,
        f"{card.name}.one_volume": str(card.one_volume),
    }


def released_weights(checkpoint: Path | None) -> tuple[ReleasedWeights | None, str]:
    """The weights to start from, and the same in words; without a checkpoint random ones."""
    if checkpoint is None:
        return None, "random weights"
    from trainables.models.released import ReleasedWeights

    return ReleasedWeights(str(checkpoint.resolve())), f"released weights ({checkpoint.name})"
