"""The files that users bring, by format: small valid ones, and what reads them (see ``fuzzing``)."""

import gzip
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import nibabel
import numpy as np
import safetensors.torch
import torch
from fuzzing import Mutate, Parser
from PIL import Image

from trainables.api.errors import BadData
from trainables.data import chest_xray14, isic2016, isic2019, labels_csv, nifti, pictures
from trainables.data.digits import SklearnDigits
from trainables.data.folder import Folder, FolderLabels, FolderMask
from trainables.data.folder_volumes import FolderVolumeMask, FolderVolumes
from trainables.data.records import Dataset
from trainables.models.encoder import build_encoder
from trainables.models.released import ReleasedWeights, load_released
from trainables.models.weight_files import read_weight_file

warnings.simplefilter("ignore")  # of libraries, on what they read

_SHAPE = (5, 6, 7)

Make = Callable[[Path], Parser]
Inside = Callable[[bytes, Mutate], bytes]


# -- pictures ----------------------------------------------------------------------------------------


def _pixels(mode: str) -> Image.Image:
    values_HW4 = np.random.default_rng(3).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values_HW4[..., :2].copy().view(np.uint16)[..., 0])
    return Image.fromarray(values_HW4, "RGBA").convert(mode)


def _saved(format_: str, mode: str, **options: object) -> bytes:
    file = io.BytesIO()
    _pixels(mode).save(file, format_, **options)
    return file.getvalue()


def _frames(format_: str) -> bytes:
    file = io.BytesIO()
    _pixels("RGB").save(file, format_, save_all=True, append_images=[_pixels("RGB")])
    return file.getvalue()


def _pngs() -> list[bytes]:
    saved = [_saved("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    return [*saved, _saved("PNG", "P", transparency=3)]


def _jpegs() -> list[bytes]:
    saved = [_saved("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
    return [*saved, _saved("JPEG", "RGB", progressive=True), _frames("MPO")]


def _tiffs() -> list[bytes]:
    saved = [_saved("TIFF", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK")]
    compressions = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    saved += [_saved("TIFF", "RGB", compression=compression) for compression in compressions]
    return [*saved, _saved("TIFF", "1", compression="group4"), _saved("TIFF", "L", big_tiff=True)]


def _bitmaps() -> list[bytes]:
    return [_saved("BMP", mode) for mode in ("1", "L", "P", "RGB", "RGBA")]


def _webps() -> list[bytes]:
    return [_saved("WEBP", mode, lossless=lossless) for mode in ("RGB", "RGBA") for lossless in (False, True)]


@lru_cache
def _refused() -> list[bytes]:
    """Several images in a file, colours that nobody shows, and kinds of files that are not taken."""
    return [*(_frames(name) for name in ("PNG", "TIFF", "WEBP")), _saved("TIFF", "LAB"), _saved("EPS", "RGB")]


def _as_an_image(path: Path) -> None:
    picture = pictures.read_picture(path, path.name)
    pictures.is_grey(picture)
    pictures.grey(picture)
    pictures.colours(picture)


def _as_a_mask(path: Path) -> None:
    picture = pictures.read_picture(path, path.name, is_mask=True)
    pictures.bright_mask(picture)
    pictures.mask(picture, path.name)


def _size(path: Path) -> None:
    pictures.picture_size(path, path.name)


def _picture(make: Callable[[], list[bytes]], suffix: str, inside: Inside, folder: Path) -> Parser:
    readers = (_as_an_image, _as_a_mask, _size)
    return Parser(folder / f"picture{suffix}", make(), readers, (BadData,), others=_refused(), inside=inside)


def _with_checksums(content: bytes, mutate: Mutate) -> bytes:
    """A PNG whose chunks have the checksums that belong to them."""
    changed, place = bytearray(mutate(content)), 8
    while place + 12 <= len(changed):
        end = place + 8 + int.from_bytes(changed[place : place + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = struct.pack(">I", zlib.crc32(changed[place + 4 : end]))
        place = end + 4
    return bytes(changed)


def _as_it_is(content: bytes, mutate: Mutate) -> bytes:
    return mutate(content)


# -- volumes -----------------------------------------------------------------------------------------


def _volume(kind: type = nibabel.Nifti1Image, dtype: str = "<i2", shape: Sequence[int] = _SHAPE, **header: object):
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    volume = kind(voxels, np.diag([2.0, 3.0, 4.0, 1.0]), kind.header_class(endianness=dtype[0]))
    for field, value in header.items():
        volume.header[field] = value
    return volume.to_bytes()


@lru_cache
def _volumes() -> list[bytes]:
    noted = nibabel.Nifti1Image(np.ones(_SHAPE, np.uint8).cumsum(-1, np.uint8), np.eye(4))
    noted.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"of the scanner"))
    return [
        _volume(),
        _volume(dtype=">i2"),
        _volume(dtype="<f4", scl_slope=2.0, scl_inter=1.0),
        _volume(dtype="<f8", shape=(*_SHAPE, 1)),
        _volume(nibabel.Nifti2Image),
        noted.to_bytes(),
    ]


def _compressed() -> list[bytes]:
    return [gzip.compress(content, 1, mtime=0) for content in _volumes()]


def _in_gzip(content: bytes, mutate: Mutate) -> bytes:
    return gzip.compress(mutate(gzip.decompress(content)), 1, mtime=0)


def _whole_volume(path: Path) -> None:
    scan = nifti.read_scan(path)
    nifti.canonical(scan)
    nifti.contradiction(scan, scan)


def _slice(path: Path) -> None:
    scan = nifti.read_scan(path, slice_index=2)
    nifti.upright(scan.voxels, scan.affine)


def _place(path: Path) -> None:
    nifti.read_place(path, path.name)


def _nifti(folder: Path) -> Parser:
    return Parser(folder / "volume.nii", _volumes(), (_whole_volume, _slice, _place), (BadData,))


def _nifti_gz(folder: Path) -> Parser:
    readers = (_whole_volume, _slice, _place)
    return Parser(folder / "volume.nii.gz", _compressed(), readers, (BadData,), inside=_in_gzip)


# -- data sets, as a study reads them ----------------------------------------------------------------


def _own_pictures(folder: Path) -> Parser:
    """One picture of a user's folder, and what is made of it."""
    path = folder / "images" / "a.png"
    path.parent.mkdir()
    (folder / "masks").mkdir()
    valid = [*_pngs()[:7], *_tiffs(), *_jpegs()]
    for name in ("b", "c"):
        (folder / "images" / f"{name}.png").write_bytes(valid[1])
    for name in "abc":
        (folder / "masks" / f"{name}.png").write_bytes(valid[0])

    def decode(path: Path) -> None:
        images = Folder.found(folder, image_size_px=16)
        for record in images.records():
            images.decode(record)
            FolderMask(images).decode(record)

    return Parser(path, valid, (decode,), (BadData,), inside=_with_checksums)


def _own_volumes(folder: Path) -> Parser:
    path = folder / "images" / "a.nii"
    (folder / "masks").mkdir()
    path.parent.mkdir()
    (folder / "masks" / "a.nii").write_bytes(_volumes()[0])

    def decode(path: Path) -> None:
        images = FolderVolumes(folder, image_size_px=16)
        for record in images.records():
            images.decode(record)
            FolderVolumeMask(images).decode(record)

    return Parser(path, _volumes(), (decode,), (BadData,))


def _labels(folder: Path) -> Parser:
    (folder / "images").mkdir()
    for name in "abcd":
        (folder / "images" / f"{name}.png").write_bytes(_pngs()[1])
    rows = "a,1,train,x\nb.png,1,train,y\nimages/c.png,2,val,x\nd,3,test,\n"
    text = f"image,group,split,label\n{rows}"
    quoted = text.replace("2", '"2,\n2"').replace("\n", "\r\n")
    valid = [text.encode(), text.replace(",", ";").encode("utf-8-sig"), quoted.encode(), "id,label\na,ä\n".encode()]

    def read(path: Path) -> None:
        labels_csv.read_rows(folder, ["a", "b", "c", "d"])
        labels_csv.gives_groups(folder, ["a", "b", "c", "d"])

    def labels(path: Path) -> None:
        FolderLabels(Folder.found(folder, image_size_px=16)).labels()

    return Parser(folder / labels_csv.NAME, valid, (read, labels), (BadData,))


def _table(kind: type[Dataset], labels: type, name: str, names: Sequence[str], images: str, folder: Path) -> Parser:
    """A table that a data set brings with it; ``images`` begins the names of images."""
    data = kind.example(folder)

    def read(path: Path) -> None:
        data.card()
        labels(data).labels()

    def decode_a_missing_one(path: Path) -> None:
        files = data.source_files()
        missing = (record for record in data.records() if record.file not in files)
        if (record := next(missing, None)) is not None:
            data.decode(record)

    valid, *others = ((folder / name).read_bytes() for name in (name, *names))
    readers = (read, decode_a_missing_one)
    return Parser(folder / name, [valid], readers, (BadData,), names=[name, *names, images], others=others)


def _digits(folder: Path) -> Parser:
    images = SklearnDigits.example(folder)
    path = folder / images.file_name()
    return Parser(path, [path.read_bytes()], (lambda path: images.records(),), (BadData,), inside=_in_gzip)


_ISIC2019 = (isic2019.TRUTH, isic2019.METADATA)
_ISIC2016 = (isic2016.table_of("train"), isic2016.table_of("test"))
_CHEST = ("Data_Entry_2017_v2020.csv", chest_xray14.TRAIN_LIST, chest_xray14.TEST_LIST)


def _tables(kind: type[Dataset], labels: type, names: Sequence[str], images: str) -> dict[str, Make]:
    return {name: partial(_table, kind, labels, name, [n for n in names if n != name], images) for name in names}


# -- weights -----------------------------------------------------------------------------------------


def _tensors(prefix: str) -> dict[str, torch.Tensor]:
    names = ("conv1.weight", "layer1.0.conv1.weight", "fc.2.weight")
    floats = {f"{prefix}{name}": torch.ones(2, 3) for name in names}
    return floats | {f"{prefix}bn1.num_batches_tracked": torch.zeros((), dtype=torch.long)}


def _checkpoint() -> dict[str, object]:
    state = _tensors("module.encoder_q.") | {"module.queue": torch.ones(2, 4, dtype=torch.float16)}
    return {"epoch": 800, "arch": "resnet18", "state_dict": state, "optimizer": {"param_groups": [{"lr": 0.03}]}}


def _torch_file(content: object, *, is_archive: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=is_archive)
    return file.getvalue()


def _torch_files(*, is_archive: bool) -> list[bytes]:
    parts = (_checkpoint(), _tensors(""), {"model": _tensors("module.")})
    return [_torch_file(part, is_archive=is_archive) for part in parts]


def _safetensors() -> list[bytes]:
    return [safetensors.torch.save(_tensors(prefix), {"format": "pt"}) for prefix in ("", "encoder_q.")]


def _in_archive(content: bytes, mutate: Mutate) -> bytes:
    """The pickle of an archive of torch is changed, with the checksum that belongs to it."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(made, "w") as target:
        for entry in source.infolist():
            member = source.read(entry)
            target.writestr(entry.filename, mutate(member) if entry.filename.endswith("data.pkl") else member)
    return made.getvalue()


def _in_header(content: bytes, mutate: Mutate) -> bytes:
    """The header of a safetensors file is changed, and has the length that is said."""
    length = int.from_bytes(content[:8], "little")
    header = mutate(content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


@lru_cache
def _encoder():
    return build_encoder("resnet18", "v2", 1, 16)


def _go_on_from(path: Path) -> None:
    load_released(ReleasedWeights(str(path)), _encoder())


def _weights(name: str, make: Callable[[], list[bytes]], inside: Inside, folder: Path) -> Parser:
    _encoder()
    return Parser(folder / name, make(), (read_weight_file, _go_on_from), (ValueError,), inside=inside)


PARSERS: dict[str, Make] = {
    "png": partial(_picture, _pngs, ".png", _with_checksums),
    "jpeg": partial(_picture, _jpegs, ".jpg", _as_it_is),
    "tiff": partial(_picture, _tiffs, ".tif", _as_it_is),
    "bmp": partial(_picture, _bitmaps, ".bmp", _as_it_is),
    "webp": partial(_picture, _webps, ".webp", _as_it_is),
    "nifti": _nifti,
    "nifti-gz": _nifti_gz,
    "own-pictures": _own_pictures,
    "own-volumes": _own_volumes,
    "labels": _labels,
    **_tables(isic2019.ISIC2019, isic2019.ISIC2019Diagnosis, _ISIC2019, isic2019.IMAGES_FOLDER),
    **_tables(isic2016.ISIC2016, isic2016.ISIC2016Malignancy, _ISIC2016, "ISBI2016_ISIC_Part3"),
    **_tables(chest_xray14.ChestXray14, chest_xray14.ChestXray14Findings, _CHEST, "images/"),
    "digits": _digits,
    "torch": partial(_weights, "w.pth.tar", partial(_torch_files, is_archive=True), _in_archive),
    "torch-old": partial(_weights, "w.pt", partial(_torch_files, is_archive=False), _as_it_is),
    "safetensors": partial(_weights, "w.safetensors", _safetensors, _in_header),
}
