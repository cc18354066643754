"""What studies start from: data sets by their name on the command line, and released weights.

The names are for flags: what reads images is loaded when it is asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from trainables.data.records import Dataset
    from trainables.models.released import ReleasedWeights

DatasetName = Literal["mni152", "brats"]


def default_dataset(scale: str) -> DatasetName:
    """The thesis's data set at full scale, else the packaged one."""
    return "brats" if scale == "full" else "mni152"


def dataset_of(name: DatasetName, image_size_px: int, data_root: Path | None) -> Dataset:
    """The data set of a name. Raises ValueError where it lies nowhere, saying what to give."""
    from trainables.data.brats import BraTS
    from trainables.data.mni152 import MNI152

    if name == "mni152":
        return MNI152(image_size_px=image_size_px)
    if data_root is None:
        raise ValueError(
            "the data set brats is not packaged: give --data-root with the folder that holds "
            "MICCAI_BraTS2020_TrainingData, or choose mni152, whose images are packaged"
        )
    return BraTS(root=data_root.resolve(), image_size_px=image_size_px)


def dataset_facts(data: Dataset) -> dict[str, str]:
    """What every report says of a data set."""
    return {
        f"{data.name}.counts": json.dumps(Counter(record.split for record in data.records())),
        f"{data.name}.split": data.split_description,
        f"{data.name}.licence": data.licence,
        f"{data.name}.one_volume": str(data.one_volume),
    }


def released_weights(checkpoint: Path | None) -> tuple[ReleasedWeights | None, str]:
    """The weights to start from, and the same in words; without a checkpoint random ones."""
    if checkpoint is None:
        return None, "random weights"
    from trainables.models.released import ReleasedWeights

    return ReleasedWeights(str(checkpoint.resolve())), f"released weights ({checkpoint.name})"
