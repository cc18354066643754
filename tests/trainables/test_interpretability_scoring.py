import pytest

from trainables.interpretability.scoring import Scoring


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"binarisations": ()}, "at least one"),
        ({"binarisations": ("otsu", "otsu")}, "each once"),
        ({"binarisations": ("median",)}, "'median'.*otsu"),
        ({"percentile": 120}, "percentile = 120"),
    ],
)
def test_impossible_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scoring(**settings)
