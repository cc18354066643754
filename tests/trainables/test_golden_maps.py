"""Numbers that may change with a version only: maps and views in float64 on one thread, as a few projections.

A key says what was asked for, so results in stores must stay what the same code would compute again.
"""

from collections.abc import Iterator

import pytest
import torch
from test_frozen import CPU, lively_encoder
from test_saliency import all_views, anchors_of
from torch import Tensor

from trainables.models.frozen import FrozenEncoder
from trainables.saliency.gradients import SmoothGrad
from trainables.sweeps import Brightness, CentreCrop, GaussianBlur, Rotation, Sweep

ADVICE = (
    "{name} no longer computes what it did: if that is wanted, raise its `version` (or that of the base or function's "
    "owner whose meaning has changed), so that old results are not taken for new ones, and put {found} here"
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def projections(pixels: Tensor) -> list[float]:
    """Three numbers that any change of a pixel changes."""
    values_X = pixels.double().flatten()
    places_X = torch.arange(len(values_X), dtype=torch.float64)
    return [float(values_X @ torch.cos(frequency * places_X)) for frequency in (0.0, 0.37, 1.9)]


def assert_golden(name: str, pixels: Tensor, wanted: list[float]) -> None:
    found = projections(pixels)
    scale = float(pixels.double().abs().sum())
    assert found == pytest.approx(wanted, rel=0, abs=1e-8 * scale), ADVICE.format(name=name, found=found)


METHODS = {
    "SmoothGrad": SmoothGrad(num_samples=2),
    "SmoothGrad of the tool": SmoothGrad(2, noise_on="both", times_input=True, guided=True, blur_map=True),
}
MAPS = {
    ("SmoothGrad", "maps"): [0.5549578820154829, 0.0012349860784851728, -0.0035657935977896236],
    ("SmoothGrad", "anchor_maps"): [0.7099331826234467, 0.010910755843801863, -0.0021254245308284384],
    ("SmoothGrad of the tool", "maps"): [0.8311717878539739, -0.0028420695642350485, -2.8854828348639686e-05],
    ("SmoothGrad of the tool", "anchor_maps"): [
        1.0204109419017513,
        -0.0009151685718698779,
        -2.7290521839175405e-05,
    ],
}
VIEWS = {
    "Rotation": [1277.1540221826626, 2.039603961042518, -2.701201395623034],
    "GaussianBlur": [1515.899124413366, 0.019583862972829796, 0.5278378000238695],
    "CentreCrop": [1126.3537957988055, 1.4814590296040424, 2.488692884453184],
    "Brightness": [2126.2798766987908, -4.786863648287963, 16.40808882952927],
}


@pytest.mark.parametrize(("name", "of"), [(name, of) for name in METHODS for of in ("maps", "anchor_maps")])
def test_maps_are_what_they_were(name: str, of: str) -> None:
    method, anchors = METHODS[name], anchors_of()
    frozen = FrozenEncoder(lively_encoder().double(), CPU, torch.float64)
    compute = method.maps if of == "maps" else method.anchor_maps
    maps = compute(frozen, anchors, method.prepare(frozen, anchors), all_views(anchors, (30.0,)))
    assert_golden(name, maps, MAPS[name, of])


@pytest.mark.parametrize(
    ("sweep", "value"), [(Rotation(), 30.0), (GaussianBlur(), 0.05), (CentreCrop(), 0.7), (Brightness(), 1.5)]
)
def test_views_and_maps_brought_back_are_what_they_were(sweep: Sweep, value: float) -> None:
    anchors = anchors_of(sweep=sweep)
    views = all_views(anchors, (value,))
    back = sweep.back(views.images_PCHW[:, 0], views.values_P)
    name = type(sweep).__name__
    assert_golden(name, torch.cat([views.images_PCHW[:, 0], back]), VIEWS[name])
