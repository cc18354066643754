"""What failures say, whose first line is all that a table shows."""

from trainables.api.errors import BadData


def test_bad_data_names_a_file_in_its_first_line():
    assert str(BadData("data set x", {"a.png": "is empty"})) == "data set x: a.png: is empty"
    first, *rest = str(BadData("data set x", {"a.png": "is empty", "b.png": "is no image"})).splitlines()
    assert first == "data set x: 2 unusable files, a.png among them"
    assert rest == ["  a.png: is empty", "  b.png: is no image"]


def test_of_very_many_bad_files_the_number_is_said():
    lines = str(BadData("x", {f"{n}.png": "is empty" for n in range(60)})).splitlines()
    assert lines[0].startswith("x: 60 unusable files")
    assert len(lines) == 52
    assert lines[-1] == "  ... and 10 more"
