"""What goes wrong with files on users' disks: each function breaks one file as it happens there."""

import errno
import os
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image, PngImagePlugin


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def no_image(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


def other_size(path: Path) -> None:
    with Image.open(path) as picture:
        smaller = picture.resize((picture.width - 1, picture.height))
    smaller.save(path)


def rename(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def sform(path: Path, voxels: np.ndarray, rows: object) -> None:
    """Write a .nii whose header has these three rows as its sform, which nibabel itself would not write."""
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[280 : 280 + 48] = np.asarray(rows, "<f4").tobytes()
    path.write_bytes(content)


def bomb(path: Path) -> None:
    """A PNG whose header claims 50,000 x 50,000 pixels."""
    header = b"\x00\x00\xc3\x50\x00\x00\xc3\x50\x08\x00\x00\x00\x00"
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(file, b"IHDR", header)
        PngImagePlugin.putchunk(file, b"IDAT", b"")


def several_pages(path: Path) -> None:
    pages = [Image.fromarray(np.zeros((9, 9), np.uint8)) for _ in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def forbid(path: Path, monkeypatch) -> None:
    """What chmod does to others than root, who may run the tests."""
    access, open_path = os.access, Path.open

    def refuse(self, *arguments, **options):
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_path(self, *arguments, **options)

    monkeypatch.setattr(os, "access", lambda name, mode: Path(name) != path and access(name, mode))
    monkeypatch.setattr(Path, "open", refuse)
