"""Many pixels lie in a temporary file, and nothing else changes."""

import contextlib
import mmap
import resource
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed
from PIL import Image

from fer_features.errors import SourceError
from fer_features.faces import pixels as pixels_module
from fer_features.faces.pixels import PixelBuffer, take
from fer_features.faces.reading import read_faces

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 48), dtype=np.uint8)
CELLS = [" ".join(map(str, image.ravel())) for image in PIXELS]


def is_mapped(array: np.ndarray) -> bool:
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap)


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The temporary folder, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def little_memory(temporary, monkeypatch) -> Path:
    """Memory for four faces; returns the temporary folder for what is beyond."""
    monkeypatch.setattr(pixels_module, "IN_MEMORY", 4 * 48 * 48)
    return temporary


def csv_of(tmp_path: Path) -> Path:
    (tmp_path / "faces.csv").write_text("pixels\n" + "".join(f"{cell}\n" for cell in CELLS))
    return tmp_path / "faces.csv"


def folder_of(tmp_path: Path) -> Path:
    (tmp_path / "faces").mkdir()
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(tmp_path / "faces" / f"{i:02d}.png")
    return tmp_path / "faces"


@pytest.mark.parametrize("source", [csv_of, folder_of])
@pytest.mark.parametrize("limit", [None, 15])
def test_pixels_in_a_temporary_file_are_those_in_memory(
    tmp_path, monkeypatch, temporary, source, limit
):
    path = source(tmp_path)
    held = read_faces(path, limit=limit)
    monkeypatch.setattr(pixels_module, "IN_MEMORY", 4 * 48 * 48)
    mapped = read_faces(path, limit=limit)
    assert (is_mapped(held.pixels), is_mapped(mapped.pixels)) == (False, True)
    np.testing.assert_array_equal(mapped.pixels, held.pixels)
    assert mapped.pixels.dtype == np.uint8
    assert mapped.content_sha256 == held.content_sha256
    assert not list(temporary.iterdir())  # the file has no name to be left behind


def test_neither_can_be_written_to(tmp_path, monkeypatch):
    path = csv_of(tmp_path)
    held = read_faces(path).pixels
    monkeypatch.setattr(pixels_module, "IN_MEMORY", 0)
    for pixels in (held, read_faces(path).pixels):
        with pytest.raises(ValueError, match="read-only"):
            pixels[0] = 0


@pytest.mark.parametrize("shape", [(48, 48), (24, 32, 3)])
@pytest.mark.parametrize("block", [1, 3, 40])
def test_blocks_join_across_the_threshold(little_memory, shape, block):
    buffer = PixelBuffer(shape, "faces")
    images = PIXELS.reshape(-1, *shape)
    for start in range(0, len(images), block):
        buffer.append(images[start : start + block])
    np.testing.assert_array_equal(buffer.array(), images)


def test_exactly_what_memory_is_given_stays_there(little_memory):
    for count, mapped in ((4, False), (5, True)):
        buffer = PixelBuffer((48, 48), "faces")
        buffer.append(PIXELS[:count])
        assert is_mapped(buffer.array()) == mapped


def test_no_image_is_an_empty_array():
    assert PixelBuffer((24, 24, 3), "faces").array().shape == (0, 24, 24, 3)


def test_images_are_taken_from_an_array_in_the_order_asked_for(little_memory, monkeypatch):
    monkeypatch.setattr(pixels_module, "_BLOCK", 3 * 48 * 48)
    rows = np.array([39, 0, 7, 7, 20, 3, 1, 38])
    taken = take(PIXELS, rows, "faces")
    np.testing.assert_array_equal(taken, PIXELS[rows])
    assert is_mapped(taken)


def test_the_memory_that_reading_takes_does_not_grow_with_the_rows(tmp_path, little_memory):
    row = " ".join(["123"] * 2304) + "\n"
    peaks = []
    for rows in (300, 3000):
        (tmp_path / "faces.csv").write_text("pixels\n" + row * rows)
        tracemalloc.start()
        assert len(read_faces(tmp_path / "faces.csv")) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.1 * 2700 * 48 * 48


def test_worker_processes_are_given_pixels_in_a_temporary_file(little_memory):
    buffer = PixelBuffer((48, 48), "faces")
    buffer.append(np.tile(PIXELS, (40, 1, 1)))  # enough that joblib passes it by a file
    half = buffer.array()[800:]
    assert Parallel(2)(delayed(np.sum)(half) for _ in range(2)) == [half.sum()] * 2


# A temporary folder without room


@contextlib.contextmanager
def full_disk_after(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("source", [csv_of, folder_of])
@pytest.mark.parametrize("images", [2, 4, 7, 39])
def test_a_full_temporary_folder_is_one_line_with_what_to_do(
    tmp_path, little_memory, source, images
):
    path = source(tmp_path)
    with full_disk_after(images * 48 * 48), pytest.raises(SourceError) as raised:
        read_faces(path)
    assert str(raised.value) == (
        f"{path}: its pixels cannot be kept in the temporary folder {little_memory} (File too "
        "large), expected room for all of them. Make room there, or set TMPDIR to another folder."
    )
    assert not list(little_memory.iterdir())
    assert len(read_faces(path)) == 40


def test_a_missing_temporary_folder_is_one_line_too(tmp_path, little_memory):
    little_memory.rmdir()
    with pytest.raises(SourceError, match=r"\(No such file or directory\), expected room .*TMPDIR"):
        read_faces(csv_of(tmp_path))


def test_no_temporary_folder_at_all_is_one_line_too(tmp_path, little_memory, monkeypatch):
    path = csv_of(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(SourceError, match=r"temporary folder \(No usable temporary .*TMPDIR"):
        read_faces(path)


def test_open_files_do_not_pile_up(tmp_path, little_memory):
    path = csv_of(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        read_faces(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
