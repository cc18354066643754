"""The picture shows what the arrays hold, where it says."""

import numpy as np
from PIL import Image

from trainables.interpretability.sample_maps import write_picture


def test_every_tile_is_in_its_place(tmp_path):
    random = np.random.default_rng(0)
    samples = {
        "image_id": np.array(["a", "b"]),
        "images_KHW": random.integers(0, 256, (2, 5, 5), dtype=np.uint8),
        "masks_KHW": random.integers(0, 2, (2, 5, 5), dtype=np.uint8),
        "values": np.array([0.0, 95.0]),
        **{f"{name}_KVHW": random.random((2, 2, 5, 5)) for name in ("views", "view_maps", "maps")},
    }
    samples["maps_KVHW"][1, 1] = 3.0  # a constant map is black, not a division by nothing
    write_picture(tmp_path / "samples.png", samples)
    picture = np.array(Image.open(tmp_path / "samples.png"))
    assert picture.shape == (2 * 5 + 4, 8 * 5 + 7 * 4)
    tiles = [[picture[k * 9 : k * 9 + 5, c * 9 : c * 9 + 5] for c in range(8)] for k in range(2)]
    for k in range(2):
        assert (tiles[k][0] == samples["images_KHW"][k]).all()
        assert (tiles[k][1] == samples["masks_KHW"][k] * 255).all()
        assert (tiles[k][2].min(), tiles[k][2].max()) == (0, 255)
    map_HW = samples["view_maps_KVHW"][0, 1]
    expected = np.round((map_HW - map_HW.min()) / (map_HW.max() - map_HW.min()) * 255)
    assert (tiles[0][6] == expected).all()
    assert (tiles[1][7] == 0).all()
