"""The store: what is written is read back, and whatever is wrong with a file is said."""

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import Store, extract
from fer_features.embedding.store import find_store
from fer_features.errors import StoreError
from fer_features.faces.emotions import EMOTIONS, USAGES

N, M = 40, 38
FACES = replace(
    noise_faces(N),
    group=np.array(["", "Zoë", "b", "Person 1"] * 10),
    source=np.array([f"{'é' * (i % 5)}/{i}.png" for i in range(N)]),
    usage=np.resize(np.array([0, 1, 2, -1], np.int8), N),
    emotion=np.resize(np.array([0, 6, -1, 3, 2], np.int8), N),
)
SPEC = replace(TINY, layers=("one", "three"))
DIMENSIONS = {"final": 16, "one": 8, "three": 16}
EMBEDDINGS = tuple(f"images/embeddings/{name}" for name in DIMENSIONS)
IMAGES = ("images/digest", *EMBEDDINGS, "images/checksum")
ROWS = tuple(
    f"rows/{name}" for name in ("image", "emotion", "usage", "group", "source", "checksum")
)
DATASETS = (*IMAGES, *ROWS)
ATTRIBUTES = (
    "format", "format_version", "backbone", "fingerprint", "outputs", "dataset", "provenance"
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract(FACES, tmp_path_factory.mktemp("store") / "whole.h5", backbone=SPEC).path


@pytest.fixture(scope="module")
def store(whole: Path) -> Store:
    return Store(whole)


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "faces.h5"))


@contextmanager
def held_open(path: Path, mode: str) -> Iterator[None]:
    """Let another process hold an HDF5 file open."""
    code = f"import h5py\nwith h5py.File({str(path)!r}, {mode!r}):\n print('held')\n input()"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        yield
    finally:
        process.communicate(b"\n")


def bytes_of(path: Path, name: str) -> tuple[int, int]:
    """Return where a dataset's bytes lie in the file, and how many an element has."""
    with h5py.File(path) as file:
        size = file[name].id.get_storage_size()
        return file[name].id.get_offset(), size // len(file[name])


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def refused(path: Path) -> str:
    """Return the one line with which a file is refused before any data is given out."""
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_a_store_holds_the_source_row_by_row(store: Store) -> None:
    assert len(store) == N
    assert len(store.image_digest) == M
    for name in ("emotion", "usage", "digest", "source", "group"):
        assert np.array_equal(getattr(store, name), getattr(FACES, name)), name
    assert np.array_equal(store.image_digest[store.image], FACES.digest)
    assert store.outputs == ("final", "one", "three")
    assert store.dimensions == DIMENSIONS
    assert store.backbone == SPEC.identity
    assert store.fingerprint == SPEC.fingerprint
    expected = {"name": "noise", "kind": "arrays", "rows": N, "limit": None, "skipped": 0}
    assert store.dataset.items() >= expected.items()
    assert store.dataset["image"] == [48, 48, 1]
    [only] = store.provenance["passes"]
    assert only["images"] == M
    assert {"engine", "versions", "seconds", "images_per_second", "created", "files"} <= set(only)
    assert store.verify() == []
    store.check_labels()
    assert f"{N} rows, {M} images, final 16, one 8, three 16" in repr(store)


def test_the_file_is_what_the_specification_says(path: Path) -> None:
    texts = {
        name: max(len(text.encode()) for text in getattr(FACES, name).tolist())
        for name in ("group", "source")
    }
    layout = {
        "images/digest": ("|u1", (M, 32)),
        **{f"images/embeddings/{name}": ("<f4", (M, d)) for name, d in DIMENSIONS.items()},
        "images/checksum": ("<u4", (M,)),
        "rows/image": ("<i8", (N,)),
        "rows/emotion": ("|i1", (N,)),
        "rows/usage": ("|i1", (N,)),
        "rows/group": (f"|S{texts['group']}", (N,)),
        "rows/source": (f"|S{texts['source']}", (N,)),
        "rows/checksum": ("<u4", (N,)),
    }
    assert path.read_bytes()[:9] == b"\x89HDF\r\n\x1a\n\0"  # superblock 0, the oldest
    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, each: found.append(name) if isinstance(each, h5py.Dataset) else None
        )
        assert sorted(found) == sorted(layout)
        assert set(file.attrs) == set(ATTRIBUTES)
        assert file.attrs["format"] == b"fer-features/embeddings"
        assert file.attrs["format_version"] == 1
        assert json.loads(file.attrs["outputs"]) == list(DIMENSIONS)
        for name, (kind, shape) in layout.items():
            dataset = file[name]
            assert (dataset.dtype.str, dataset.shape) == (kind, shape), name
            properties = dataset.id.get_create_plist()
            assert properties.get_layout() == h5py.h5d.CONTIGUOUS
            assert properties.get_alloc_time() == h5py.h5d.ALLOC_TIME_EARLY
            assert properties.get_nfilters() == 0
            if kind.startswith("|S"):
                assert dataset.id.get_type().get_cset() == h5py.h5t.CSET_UTF8
        for image in range(M):
            said = file["images/digest"][image].tobytes()
            said += b"".join(file[name][image].tobytes() for name in EMBEDDINGS)
            assert file["images/checksum"][image] == zlib.crc32(said)
        first = {}
        for row, digest in enumerate(FACES.digest):
            image = first.setdefault(digest.tobytes(), len(first))
            assert file["rows/image"][row] == image
            said = struct.pack("<qbb", image, FACES.emotion[row], FACES.usage[row])
            said += FACES.group[row].encode() + FACES.source[row].encode()
            assert file["rows/checksum"][row] == zlib.crc32(said)


def row_choices() -> list[Any]:
    rng = np.random.default_rng(0)
    mask = rng.random(N) < 0.4
    chosen: list[Any] = [
        None, ..., mask, mask.tolist(), ~mask, np.zeros(N, bool), np.ones(N, bool),
        slice(None), slice(3, 20, 4), slice(None, None, -1), slice(-5, None), slice(30, 99),
        slice(9, 3), 0, 39, -1, -40, np.int64(7), np.int8(-3), [9, 0, 9, 39], [-1, 3, 7], [5],
        [], np.array([], np.int64), (np.array([2, 1]),), range(4, 8), np.array([[1, 2], [-3, 1]]),
        np.uint8([200 - 198, 3]), True, np.flatnonzero(mask),
    ]  # fmt: skip
    chosen += [rng.integers(-N, N, rng.integers(1, 90)) for _ in range(10)]
    return chosen


@pytest.mark.parametrize("rows", row_choices(), ids=lambda rows: repr(rows)[:40])
@pytest.mark.parametrize("features", ["final", "three+one"])
def test_rows_mean_what_numpys_do(store: Store, rows: Any, features: str) -> None:
    everything = store.embeddings(features=features)
    expected = everything if rows is None else everything[rows]
    found = store.embeddings(rows, features)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "rows",
    [
        40, -41, [0, 40], [-41], np.ones(N - 1, bool), np.ones(N + 1, bool), [True, False], 1.0,
        [0.5], np.array([1.0]),
    ],
    ids=lambda rows: repr(rows)[:40],
)  # fmt: skip
def test_rows_that_numpy_refuses_are_refused_as_numpy_does(store: Store, rows: Any) -> None:
    with pytest.raises(IndexError):
        np.empty((N, 16))[rows]
    with pytest.raises(IndexError):
        store.embeddings(rows)


def test_features_in_the_place_of_rows_are_told_their_own(store: Store) -> None:
    with pytest.raises(TypeError, match=r"embeddings\(features='final'\)"):
        store.embeddings("final")


def test_features_are_outputs_joined_in_the_order_named(store: Store, path: Path) -> None:
    with h5py.File(path) as file:
        raw = {name: file[f"images/embeddings/{name}"][()] for name in DIMENSIONS}
        image = file["rows/image"][()]
    for features, names in {
        "final": ["final"],
        "three": ["three"],
        "three+final": ["three", "final"],
        " one + three ": ["one", "three"],
        ("one", "final", "three"): ["one", "final", "three"],
    }.items():
        expected = np.concatenate([raw[name][image] for name in names], axis=1)
        assert np.array_equal(store.embeddings(features=features), expected)
    assert np.array_equal(store.embeddings(), store.embeddings(features="final"))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("thre", r"no features 'thre', expected some of final, one, three\. Did you mean three\?"),
        (
            "final+two_relu",
            r"no features 'two_relu'.*fer-extract SOURCE -o \S+ --backbone tiny .* --layers NAME",
        ),
        ("", "no features ''"),
        ("one+", "no features ''"),
        ("one+final+one", r"'one\+final\+one', expected each output once"),
        ((), "expected each output once"),
    ],
)
def test_features_that_are_not_there_are_refused(store: Store, features: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        store.embeddings([0], features)


def test_a_frame_has_a_line_a_row_and_says_what_is_missing(store: Store) -> None:
    frame = store.to_frame()
    assert list(frame) == ["source", "image", "emotion", "usage", "group"]
    assert frame["source"].tolist() == FACES.source.tolist()
    assert np.array_equal(frame["image"], store.image)

    for name, names in (("emotion", EMOTIONS), ("usage", USAGES)):
        ids = getattr(FACES, name)
        assert frame[name].isna().tolist() == (ids == -1).tolist()
        words = frame[name].dropna().tolist()
        assert words == [names[i] for i in ids if i >= 0]
    assert frame["group"].isna().tolist() == (FACES.group == "").tolist()
    assert frame["group"].dropna().tolist() == FACES.group[FACES.group != ""].tolist()


def test_a_relative_path_holds_after_a_change_of_folder(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    store = Store(path.name)
    before = store.embeddings()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert np.array_equal(store.embeddings(), before)
    assert store.verify() == []
    assert store.path == Path("faces.h5")


def test_a_store_that_another_process_writes_is_named(path: Path) -> None:
    with held_open(path, "r+"):
        assert "another process writes it, expected it to be free" in refused(path)
    assert len(Store(path)) == N


def test_a_store_that_another_process_reads_can_be_read(path: Path) -> None:
    with held_open(path, "r"):
        assert Store(path).verify() == []


def test_a_partial_file_that_another_process_reads_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from support import TINY, noise_faces\n"
        "from fer_features.embedding import extraction\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "extraction.embed = stop\n"
        "extraction.extract(noise_faces(9), 'faces.h5', backbone=TINY, engine='tensorflow')\n"
    )
    tests = str(Path(__file__).parent.parent)
    subprocess.run([sys.executable, "-c", code, tests], cwd=tmp_path, stderr=subprocess.DEVNULL)
    partial = tmp_path / "faces.h5.partial"
    before = partial.read_bytes()
    with (
        held_open(partial, "r"),
        pytest.raises(StoreError, match=r"\.partial: another process holds it open.*close") as said,
    ):
        extract(noise_faces(9), tmp_path / "faces.h5", backbone=TINY, engine="tensorflow")
    assert "\n" not in str(said.value)
    assert partial.read_bytes() == before
    assert len(extract(noise_faces(9), tmp_path / "faces.h5", backbone=TINY)) == 9


@pytest.mark.parametrize("name", DATASETS)
def test_a_single_flipped_bit_is_found_and_its_row_named(path: Path, name: str) -> None:
    offset, size = bytes_of(path, name)
    whole = path.read_bytes()
    for element, bit, byte in ((12, 0, 0), (12, 7, size - 1), (20, 3, size // 2), (0, 6, 0)):
        path.write_bytes(whole)
        flip(path, offset + element * size + byte, bit)
        row = element if name in ROWS or element < 7 else element + 1  # row 7 is row 3's copy
        store = Store(path)
        assert store.verify() == [row]
        with pytest.raises(StoreError, match=rf"row {row} is damaged.*--repair"):
            store.embeddings([2, row])
        with pytest.raises(StoreError, match=rf"row {row} is damaged"):
            store.embeddings()
        others = np.delete(np.arange(N), row)
        assert np.array_equal(store.source[others], FACES.source[others])
        assert store.embeddings(others).shape == (N - 1, 16)
        if name in ROWS:
            for use in (store.check_labels, store.to_frame):
                with pytest.raises(StoreError, match=rf"row {row} is damaged.*--repair"):
                    use()
        else:
            store.check_labels()


def test_a_damaged_image_damages_every_row_of_it(path: Path) -> None:
    offset, size = bytes_of(path, "images/embeddings/three")
    flip(path, offset + 3 * size, 2)
    store = Store(path)
    assert store.verify() == [3, 7, 39]
    with pytest.raises(StoreError, match="rows 7, 39 are damaged"):  # also where it is not asked of
        store.embeddings([39, 1, 7], "final")


def test_many_damaged_rows_are_counted(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["rows/emotion"][10:20] ^= 1
    with pytest.raises(StoreError, match=r"rows 10, 11, 12, 13, 14 and 5 more are damaged"):
        Store(path).check_labels()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
def test_a_file_cut_short_is_one_error(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "expected" in refused(path)


def test_garbage_of_any_kind_is_one_error_or_found(path: Path) -> None:
    """Bytes overwritten anywhere are refused, or found, or in no place that is read."""
    whole = path.read_bytes()
    intact = Store(path)
    labels = {name: getattr(intact, name) for name in ("image", "emotion", "usage", "source")}
    labels["all"] = intact.embeddings(features="final+one+three")
    rng = np.random.default_rng(1)
    outcomes = []
    for _ in range(150):
        content = bytearray(whole)
        start = rng.integers(len(whole) - 16)
        content[start : start + 16] = rng.bytes(16)
        path.write_bytes(content)
        try:
            store = Store(path)
            store.check_labels()
            found = {name: getattr(store, name) for name in labels if name != "all"}
            found["all"] = store.embeddings(features="final+one+three")
        except StoreError:
            outcomes.append("refused")
            continue
        outcomes.append("unharmed")
        for name, values in labels.items():
            assert np.array_equal(found[name], values), (start, name)
    assert set(outcomes) == {"refused", "unharmed"}


def test_foreign_and_newer_files_are_refused(path: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = [1, 2]
    assert "without the attribute format" in refused(tmp_path / "foreign.h5")
    (tmp_path / "text.h5").write_text("emotion,pixels\n")
    assert "no HDF5 file" in refused(tmp_path / "text.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    assert "format_version 2, expected 1. Upgrade" in refused(path)


def test_what_is_no_file_is_named(path: Path, tmp_path: Path) -> None:
    assert "a folder, expected a store" in refused(tmp_path)
    assert str(path) in refused(tmp_path)
    assert "no such file, expected a store. Make it" in refused(tmp_path / "none.h5")
    path.rename(tmp_path / "none.h5.partial")
    assert "the same fer-extract call goes on with it" in refused(tmp_path / "none.h5")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(path: Path) -> None:
    path.chmod(0)
    assert "Permission denied" in refused(path)


@pytest.mark.parametrize("name", [*DATASETS, "images", "images/embeddings", "rows"])
def test_a_missing_dataset_or_group_is_named(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
    missing = "outputs are not those" if name in EMBEDDINGS else f"{name} is missing"
    assert missing in refused(path)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_missing_attribute_is_named(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
    assert name in refused(path)


@pytest.mark.parametrize("value", ["{", "3", "[]", b"\xff\xfe", 7, np.zeros(3)], ids=repr)
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_of_another_kind_is_refused(path: Path, name: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    refused(path)


@pytest.mark.parametrize(
    "outputs",
    [
        ["final", "one"],
        ["final", "one", "three", "two"],
        ["one", "final", "three"],
        ["final", "one", "three", "three"],
        ["final", "one", 3],
        ["final", "one", ["three"]],
        ["final", "one", "three/"],
    ],
    ids=str,
)
def test_outputs_that_are_not_the_datasets_are_refused(path: Path, outputs: list[Any]) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["outputs"] = np.bytes_(json.dumps(outputs))
    assert "outputs are not those of its attribute" in refused(path)


def test_a_backbone_that_is_not_the_fingerprints_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["fingerprint"] = np.bytes_("0" * 64)
    assert "fingerprint is not that of its backbone" in refused(path)


def _external(file: h5py.File, name: str, values: np.ndarray) -> None:
    Path(file.filename).with_name("other.raw").write_bytes(values.tobytes())
    places = [(str(Path(file.filename).with_name("other.raw")), 0, values.nbytes)]
    file.create_dataset(name, values.shape, values.dtype, external=places)


def _soft(file: h5py.File, name: str, values: np.ndarray) -> None:
    file["elsewhere"] = values
    file[name] = h5py.SoftLink("/elsewhere")


def _other_file(file: h5py.File, name: str, values: np.ndarray) -> None:
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["it"] = values
    file[name] = h5py.ExternalLink("other.h5", "it")


def _virtual(file: h5py.File, name: str, values: np.ndarray) -> None:
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["it"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource("other.h5", "it", values.shape)
    file.create_virtual_dataset(name, layout)


def _chunked(file: h5py.File, name: str, values: np.ndarray) -> None:
    file.create_dataset(name, data=values, chunks=True)


def _packed(file: h5py.File, name: str, values: np.ndarray) -> None:
    file.create_dataset(name, data=values, compression="gzip")


def _unallocated(file: h5py.File, name: str, values: np.ndarray) -> None:
    file.create_dataset(name, values.shape, values.dtype)


def _group(file: h5py.File, name: str, values: np.ndarray) -> None:
    file.create_group(name)["it"] = values


def _shorter(file: h5py.File, name: str, values: np.ndarray) -> None:
    file[name] = values[:-1]


def _deeper(file: h5py.File, name: str, values: np.ndarray) -> None:
    file[name] = values[..., None]


def _wider(file: h5py.File, name: str, values: np.ndarray) -> None:
    file[name] = values.astype("S99" if values.dtype.kind == "S" else "f8")
    if values.dtype.kind == "S":
        del file[name]
        file.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())


@pytest.mark.parametrize("name", ["images/embeddings/final", "images/digest", *ROWS[:5]])
@pytest.mark.parametrize(
    "other",
    [
        _external, _soft, _other_file, _virtual, _chunked, _packed, _unallocated, _group, _shorter,
        _deeper, _wider,
    ],
)  # fmt: skip
def test_a_dataset_of_another_layout_is_refused_before_data(
    path: Path, name: str, other: Callable[[h5py.File, str, np.ndarray], None]
) -> None:
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        del file[name]
        other(file, name, values)
    said = refused(path)
    assert "damaged" in said
    assert "dataset" in said


@pytest.mark.parametrize("name", ["images", "rows", "images/embeddings"])
def test_a_group_that_lies_elsewhere_is_refused(path: Path, name: str) -> None:
    shutil.copy(path, path.with_name("other.h5"))
    for link in (h5py.ExternalLink("other.h5", name), h5py.SoftLink("/there")):
        with h5py.File(path, "r+") as file:
            if isinstance(link, h5py.SoftLink):
                shutil.copy(path.with_name("other.h5"), path)
        with h5py.File(path, "r+") as file:
            file.move(name, "there") if isinstance(link, h5py.SoftLink) else file.pop(name)
            file[name] = link
        assert f"group {name} is missing" in refused(path)


@pytest.mark.parametrize("name", DATASETS)
def test_an_offset_beyond_the_file_is_refused(path: Path, name: str) -> None:
    with h5py.File(path) as file:
        offset, size = file[name].id.get_offset(), file[name].id.get_storage_size()
    content = path.read_bytes()
    assert content.count(struct.pack("<QQ", offset, size)) == 1
    for wrong in (len(content), len(content) - size + 1, 2**40):
        moved = content.replace(struct.pack("<QQ", offset, size), struct.pack("<QQ", wrong, size))
        path.write_bytes(moved)
        assert "expected" in refused(path)


@pytest.mark.parametrize("image", [-1, M, 2**40])
def test_a_row_of_an_image_that_is_not_there_is_damaged(path: Path, image: int) -> None:
    with h5py.File(path, "r+") as file:
        file["rows/image"][5] = image
        said = struct.pack("<qbb", image, FACES.emotion[5], FACES.usage[5])
        said += FACES.group[5].encode() + FACES.source[5].encode()
        file["rows/checksum"][5] = zlib.crc32(said)
    store = Store(path)
    assert store.verify() == [5]
    for use in (store.check_labels, store.embeddings, store.to_frame):
        with pytest.raises(StoreError, match="row 5 is damaged"):
            use()
    assert len(store.embeddings([4, 6])) == 2


def test_a_store_that_was_replaced_meanwhile_says_so(path: Path) -> None:
    """Its rows are other rows now: what is in memory and what is in the file do not fit."""
    store = Store(path)
    extract(noise_faces(9, 1), path, backbone=SPEC, overwrite=True)
    for use in (store.embeddings, store.verify):
        with pytest.raises(StoreError, match=r"changed since it was opened.*Open it again"):
            use()


def test_the_only_store_is_found_and_several_are_named(path: Path, tmp_path: Path) -> None:
    assert find_store(None, tmp_path).path == path
    shutil.copy(path, tmp_path / "other.h5")
    with pytest.raises(StoreError, match=r"2 stores, expected one\. Name one of .*faces\.h5"):
        find_store(None, tmp_path)
    with pytest.raises(StoreError, match=r"no store .*fer-extract"):
        find_store(None, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "tiny (random weights)"),
        ({"weights": "random:7@keras-3.15.1"}, "tiny (random weights 7)"),
        ({"backbone": "MobileNetV2", "weights": "imagenet", "input_size": 224}, "MobileNetV2"),
        ({"backbone": "MobileNetV2", "weights": "imagenet"}, "MobileNetV2, input 64"),
        (
            {"backbone": "sha256:" + "0" * 64, "weights": None, "precision": "int8",
             "image": [96, 96, 3]},
            "own, int8, input 64, 96x96 colour",
        ),
        ({"backbone": "VGG16", "weights": "sha256:" + "0" * 64, "input_size": 224},
         "VGG16 (mine.h5)"),
    ],
)  # fmt: skip
def test_a_network_is_called_by_its_name_and_what_is_unusual_of_it(
    whole: Path, changed: dict[str, Any], said: str
) -> None:
    store = Store(whole)
    store.backbone = store.backbone | changed
    files = {"backbone": "/there/own.keras", "weights": "/there/mine.h5"}
    store.provenance = {"passes": [{"files": files}]}
    assert store.network == said


def test_a_pass_states_how_many_parameters_its_network_has(store: Store) -> None:
    assert [each["parameters"] for each in store.provenance["passes"]] == [4128]
