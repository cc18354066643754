"""Figures of the thesis that show single images: its chapter 3, and 5.2 to 5.5. All from the samples beside curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from analysis.curves import samples
from analysis.curves.panels import TRAINED
from analysis.exhibits.rotation import is_of, rotations
from analysis.pages.evidence import CurveSet, sample_maps
from analysis.render.files import file_name
from analysis.render.pictures import Pictures, Rows
from analysis.results import StudyResults
from trainables.api.names import label_values

_SALIENT = "Maps of the first trained encoder: bright is salient, each scaled to its own range; turquoise: the mask."


def image_of(data: str) -> Callable[[StudyResults], list[Pictures]]:
    """Figures 3.1 to 3.3: an image of one data set and its mask."""

    def make(results: StudyResults) -> list[Pictures]:
        return [
            _named("sample", found, Pictures("", "Sample", f"{name}, image and mask.", [(name, tiles[:2])]))
            for found, rows in _shown(results, 1)
            if is_of(found, data)
            for name, tiles in rows
        ]

    return make


def several_maps(results: StudyResults) -> list[Pictures]:
    """Figure 5.2: images, masks and saliency maps of four images, of each data set and region."""
    made = []
    for found, rows in _shown(results, 4):
        caption = f"Images {', '.join(name for name, _ in rows)}: image, mask and saliency map. {_SALIENT}"
        pictures = Pictures("", f"Saliency maps, {found.title}", caption, [(name, tiles[:3]) for name, tiles in rows])
        made.append(_named("maps", found, pictures))
    return made


def turned(data: str | None) -> Callable[[StudyResults], list[Pictures]]:
    """Figures 5.3 to 5.5: an image of one data set with its mask and map, then the same rotated by 95° with its map, in
    one row; of each data set and region that the thesis has not for None."""

    def make(results: StudyResults) -> list[Pictures]:
        made = []
        for found, rows in _shown(results, 1):
            if not is_of(found, data):
                continue
            caption = f"As it is and rotated; where the thesis shows the rotated mask, the map rotated back. {_SALIENT}"
            made.append(_named("turned", found, Pictures("", f"Maps under rotation, {found.title}", caption, rows)))
        return made

    return make


def _shown(results: StudyResults, max_images: int) -> Iterator[tuple[CurveSet, Rows]]:
    """The sets of which a trained encoder's samples are there, with their tiles: image, mask, map; the same turned."""
    for found in rotations(results):
        trained = sample_maps(results, found).get(TRAINED)
        if trained is not None and samples.can_be_shown(trained, found.sweep):
            yield found, samples.sample_rows(trained, None, found.sweep, max_images)


def _named(what: str, found: CurveSet, pictures: Pictures) -> Pictures:
    return replace(pictures, name=file_name(what, *label_values(found.labels)))
