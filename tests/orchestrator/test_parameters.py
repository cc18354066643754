"""Parameters in MLflow are short enough to stand side by side."""

import re

from mlflow.utils.validation import _validate_param_name

from orchestrator.parameters import parameters, valid_name


def test_a_configuration_is_short_dotted_parameters():
    configuration = {
        "class": "Curve", "method": {"class": "SmoothGrad", "sigma": 0.15}, "values": [0.0, 2.5, *range(3, 75), 360.0],
        "parts": [{"class": "Crop", "p": 0.5}, {"class": "Flip"}], "few": [1, 2, 4], "names": ["full", "kept"],
        "none": None, "empty": [], "nothing": {}, "zero": 0, "no": False, "root": "/data/brats/", "kind": "a/b",
        "letters": list("abcdefgh"),
    }  # fmt: skip
    assert parameters(configuration) == {
        "class": "Curve", "method": "SmoothGrad", "method.sigma": "0.15", "values": "0…360, 75 values",
        "parts.0": "Crop", "parts.0.p": "0.5", "parts.1": "Flip", "few": "1, 2, 4", "names": "full, kept",
        "zero": "0", "no": "false", "root": "brats", "kind": "a/b", "letters": "a…h, 8 values",
    }  # fmt: skip


def test_seeds_are_left_out_by_their_path():
    configuration = {"encoder": {"class": "MoCo", "seed": 1}, "seed": 2}
    assert parameters(configuration, without={"encoder.seed"}) == {"encoder": "MoCo", "seed": "2"}


def test_long_texts_are_cut_and_odd_names_are_mended():
    configuration = {"text": "x" * 200, "50% é": 1, "n" * 300: 2}
    shown = parameters(configuration)
    assert shown["text"] == "x" * 99 + "…"
    assert shown["50_ _"] == "1"
    for name in shown:
        _validate_param_name(name)
        assert len(name) <= 250
        assert re.fullmatch(r"[\w ]+", name)
    assert valid_name("a.b-c:d/e f") == "a.b-c:d/e f"
