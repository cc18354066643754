"""What is said while data are looked at before a study runs, and what is found wrong with large sets."""

import io
import itertools

import pytest

from studies import preparing, recipes
from studies.curve_recipes import CurveStudyOptions
from studies.hog_svm import HogSvmOptions
from studies.hog_svm import make_study as hog_study
from studies.preparing import ProgressLine, data_context
from studies.pretraining_search import PretrainingSearchOptions
from studies.pretraining_search import make_study as make_search
from studies.rotation_period import make_study
from studies.saliency_methods import make_study as methods_study
from studies.segmentation import SegmentationOptions
from studies.segmentation import make_study as segmentation_study
from trainables.api.errors import BadData
from trainables.data import cache
from trainables.data.cache import OwnContext, open_images
from trainables.data.folder import Folder, write_folder
from trainables.data.folder_volumes import write_volumes


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def slow(monkeypatch):
    """A clock that goes on by a second whenever it is read."""
    seconds = itertools.count()
    monkeypatch.setattr(preparing.time, "monotonic", lambda: next(seconds))


def test_a_terminal_sees_how_far_preparing_is_once_it_takes_long(slow, monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    line = ProgressLine()  # at 0 s
    for done in (64, 128, 192, 256):
        line(done, 5000, "images")
    assert terminal.getvalue() == "".join(f"\r\x1b[Kpreparing data: {done} of 5000 images" for done in (192, 256)), (
        "from the third second on"
    )
    line(5000, 5000, "images")
    assert terminal.getvalue().endswith("256 of 5000 images\r\x1b[K")
    line(1, 2, "images")
    assert terminal.getvalue().endswith("\r\x1b[K"), "what is prepared next has its own two seconds"


def test_logs_and_quick_preparations_see_nothing(slow, monkeypatch):
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    line = ProgressLine()
    for done in range(20):
        line(done, 20, "images")
    assert log.getvalue() == ""
    monkeypatch.undo()
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    line = ProgressLine()
    for done in range(20):
        line(done, 20, "images")
    line(20, 20, "images")
    assert terminal.getvalue() == ""


def test_a_study_prepares_with_that_line_and_a_context_tells_of_every_image(tmp_path, monkeypatch):
    context = data_context(CurveStudyOptions(cache_dir=tmp_path / "cache"))
    assert isinstance(context.on_progress, ProgressLine)
    said = []
    images = Folder(write_folder(tmp_path / "mine", 8), 32, channels=3)
    open_images(images, OwnContext(tmp_path / "cache", lambda *progress: said.append(progress)))
    assert said[-1] == (8, 8, "images")
    assert len(said) == 8


def damaged(folder):
    root = write_folder(folder / "mine", num_images=12)
    (root / "images" / "picture 3.png").write_bytes(b"")
    (root / "images" / "picture 4.png").write_text("no image")
    (root / "images" / "picture 5.png").unlink()
    (root / "images" / "picture 5.png").symlink_to("gone.png")
    (root / "masks" / "picture 6.png").unlink()
    volumes = write_volumes(folder / "scans", num_volumes=4)
    (volumes / "images" / "scan 1.nii.gz").write_bytes(b"")
    (volumes / "masks" / "scan 2.nii.gz").unlink()
    return root, volumes


def test_every_plainly_bad_file_of_large_sets_is_named_before_anything_runs(tmp_path, monkeypatch):
    """Of more images than are decoded here too, of all data sets at once; nothing is decoded but what is named."""
    monkeypatch.setattr(preparing, "_DECODED_AT_ONCE", 3)
    monkeypatch.setattr(cache, "decode_rows", lambda *_: pytest.fail("a large set was decoded"))
    names = tuple(f"folder:{root}" for root in damaged(tmp_path))
    with pytest.raises(BadData) as caught:
        make_study(CurveStudyOptions(scale="smoke", datasets=names, cache_dir=tmp_path / "cache"))
    found = {name: reason[:20] for name, reason in caught.value.problems.items()}
    assert found == {
        "folder-mine: images/picture 3.png": "is empty (0 bytes): ",
        "folder-mine: images/picture 4.png": "is no image: expecte",
        "folder-mine: images/picture 5.png": "is a symbolic link t",
        "folder-mine: masks/picture 6.png": "missing: expected pi",
        "folder-scans: images/scan 1.nii.gz": "is empty (0 bytes): ",
        "folder-scans: masks/scan 2.nii": "missing: expected sc",
    }
    with pytest.raises(BadData) as caught:
        make_search(PretrainingSearchOptions(scale="smoke", dataset=names[0], cache_dir=tmp_path / "cache"))
    assert len(caught.value.problems) == 3, "a pretraining reads no masks"


def test_a_large_set_has_at_most_as_many_images_as_show_the_region(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_DECODED_AT_ONCE", 3)
    source = recipes.source_of(f"folder:{write_volumes(tmp_path / 'scans', 2)}", 32, CurveStudyOptions())
    num = len(source.region.records())
    assert num < len(source.images.records()) == 24
    study = make_study(CurveStudyOptions(scale="smoke", datasets=(f"folder:{tmp_path / 'scans'}",)))
    assert {entry.trainable.images.num for entry in study.entries.values()} == {4}
    monkeypatch.setitem(
        recipes.SIZES, "smoke", recipes.Sizes(recipes.SIZES["smoke"].pretraining, recipes.CurveSizes(999, 2))
    )
    study = make_study(CurveStudyOptions(scale="smoke", datasets=(f"folder:{tmp_path / 'scans'}",)))
    assert {entry.trainable.images.num for entry in study.entries.values()} == {num}


@pytest.mark.parametrize("bad", [["images"], ["masks"], ["images", "masks"]])
def test_bad_images_and_bad_masks_are_named_together(tmp_path, bad):
    root = write_folder(tmp_path / "mine", num_images=8)
    paths = [sorted((root / folder).iterdir())[place] for place, folder in enumerate(bad)]
    for path in paths:
        path.write_bytes(b"")
    options = CurveStudyOptions(scale="smoke", datasets=(f"folder:{root}",), cache_dir=tmp_path / "cache")
    with pytest.raises(BadData) as caught:
        make_study(options)
    assert sorted(caught.value.problems) == [f"folder-mine: {path.relative_to(root).as_posix()}" for path in paths]


def segmentation(places, name):
    return segmentation_study(SegmentationOptions(scale="smoke", datasets=(name,), **places))


def methods(places, name):
    return methods_study(CurveStudyOptions(scale="smoke", datasets=(name,), **places))


def hog(places, name):
    return hog_study(HogSvmOptions(scale="smoke", datasets=(name,), without_curves=True, **places))


def search(places, name):
    return make_search(PretrainingSearchOptions(scale="smoke", dataset=name, **places))


@pytest.mark.parametrize(
    ("study", "reads_masks"), [(segmentation, True), (methods, True), (hog, False), (search, False)]
)
def test_every_study_names_the_bad_files_of_what_it_reads_before_anything_runs(tmp_path, study, reads_masks):
    root = write_folder(tmp_path / "mine", num_images=8)
    (root / "images" / "picture 3.png").write_text("no image")
    (root / "masks" / "picture 5.png").write_text("no image")
    with pytest.raises(BadData) as caught:
        study({"cache_dir": tmp_path / "cache"}, f"folder:{root}")
    named = {"folder-mine: images/picture 3.png"} | ({"folder-mine: masks/picture 5.png"} if reads_masks else set())
    assert set(caught.value.problems) == named


def test_bad_files_of_all_data_sets_are_named_together(tmp_path):
    roots = [write_folder(tmp_path / name, num_images=8) for name in ("one", "two")]
    for root in roots:
        (root / "images" / "picture 3.png").write_text("no image")
    names = tuple(f"folder:{root}" for root in roots)
    with pytest.raises(BadData) as caught:
        make_study(CurveStudyOptions(scale="smoke", datasets=names, cache_dir=tmp_path / "cache"))
    assert list(caught.value.problems) == [f"folder-{name}: images/picture 3.png" for name in ("one", "two")]
