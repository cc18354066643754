"""What the study of augmentation types adds to the thesis."""

from __future__ import annotations

from dataclasses import replace

from analysis.augmentations.evidence import region_sets
from analysis.augmentations.figures import pareto_figure
from analysis.render.files import file_name
from analysis.render.style import Figure
from analysis.results import StudyResults
from trainables.api.names import label_values


def use_and_maps(results: StudyResults) -> list[Figure]:
    """Of every augmentation, use against interpretability: which of them no other one beats in both."""
    return [
        replace(pareto_figure(found), name=file_name("front", *label_values(found.labels)))
        for found in region_sets(results)
        if found.points()
    ]
