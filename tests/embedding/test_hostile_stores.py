"""A store may come from anyone: it is refused in one line, reads no other file, fills no memory."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import Store, extract
from fer_features.errors import StoreError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract(
        noise_faces(20), tmp_path_factory.mktemp("hostile") / "whole.h5", backbone=TINY
    ).path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "faces.h5"))


def refused(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        Store(path).verify()
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    assert len(said) < 600
    return said


PEAK = """
def peak():
    # Of this program alone, in kB: getrusage counts what started it.
    try:
        said = open("/proc/self/status").read()
    except OSError:
        return 0
    return int(said.partition("VmHWM:")[2].split()[0])
"""


def refused_within(path: Path, megabytes: int) -> str:
    """Return the one line with which a process refuses a file, and check what memory it took."""
    code = (
        PEAK + "import sys\nfrom fer_features import Store\nbefore = peak()\n"
        "try: Store(sys.argv[1]).verify()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said, took = done.stdout.splitlines()
    assert re.match(rf"(Damaged)?StoreError {re.escape(str(path))}: ", said), said
    assert int(took) < megabytes * 1024
    return said


def edited(path: Path, name: str, changes: dict[str, Any]) -> None:
    """Change keys of an attribute that holds JSON; a backbone's fingerprint as well."""
    from fer_features.embedding.backbone import fingerprint

    with h5py.File(path, "r+") as file:
        said = {**json.loads(file.attrs[name]), **changes}
        said = {key: value for key, value in said.items() if value is not ...}
        file.attrs[name] = np.bytes_(json.dumps(said))
        if name == "backbone":
            file.attrs["fingerprint"] = np.bytes_(fingerprint(said))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("backbone", {"backbone": ...}),
        ("backbone", {"backbone": ["tiny"]}),
        ("backbone", {"input_size": "64"}),
        ("backbone", {"image": [48, 48]}),
        ("backbone", {"image": [48, 48, "1"]}),
        ("backbone", {"image": 48}),
        ("backbone", {"weights": 3}),
        ("backbone", {"precision": None}),
        ("backbone", {"input_size": True}),
        ("dataset", {"name": ...}),
        ("dataset", {"name": 7}),
        ("dataset", {"skipped": "none"}),
        ("dataset", {"left_out": {"twice": "many"}}),
        ("dataset", {"map": ["7", "anger"]}),
        ("dataset", {"map": {"7": 3}}),
        ("dataset", {"labels_as": {}}),
        ("dataset", {"limit": "all"}),
        ("provenance", {"passes": ...}),
        ("provenance", {"passes": {}}),
        ("provenance", {"passes": ["openvino"]}),
        ("provenance", {"passes": [{}]}),
        ("provenance", {"passes": [{"engine": "openvino", "files": {"backbone": 3}}]}),
        ("provenance", {"passes": [{"engine": "openvino", "created": 3}]}),
        ("provenance", {"passes": [{"engine": "openvino", "batch_size": "64"}]}),
        ("provenance", {"passes": [{"engine": "openvino", "images": None}]}),
    ],
    ids=lambda value: json.dumps(value, default=str) if isinstance(value, dict) else value,
)
def test_a_document_of_other_keys_or_types_is_refused(
    path: Path, name: str, changes: dict[str, Any]
) -> None:
    edited(path, name, changes)
    assert f"attribute {name}" in refused(path)


@pytest.mark.parametrize("name", ["backbone", "dataset", "provenance", "outputs"])
@pytest.mark.parametrize(
    "value",
    [
        b"[" * 30_000,
        b"[" * 900 + b"]" * 900,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
        b'{"name": ' + b"9" * 5_000 + b"}",
        b"\xff\xfe{",
        b'"\\ud800"',
        b"",
    ],
    ids=["open", "lists", "objects", "deep", "number", "bytes", "surrogate", "empty"],
)
def test_json_of_any_depth_and_bytes_of_any_kind_are_refused(
    path: Path, name: str, value: bytes
) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = np.bytes_(value) if value else h5py.Empty("S1")
    assert f"attribute {name}" in refused(path) or name == "outputs"


@pytest.mark.parametrize("depth", [9, 90, 600])
def test_what_nobody_asks_for_is_not_deep_either(path: Path, depth: int) -> None:
    """It would be written again, and a fingerprint is made of all of it."""
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    other = Path(shutil.copy(path, path.with_name("other.h5")))
    edited(path, "backbone", {"more": deep})
    assert "attribute backbone is not what it should be" in refused(path)
    edited(other, "provenance", {"passes": [{"engine": "openvino", "more": deep}]})
    assert "attribute provenance is not what it should be" in refused(other)


@pytest.mark.parametrize("name", ["format", "format_version", "backbone", "outputs", "provenance"])
@pytest.mark.parametrize(
    "value",
    [
        np.array([b"a", b"b"]), np.float64(1), np.zeros(3, "S9"), h5py.Empty("i8"), "text",
        np.array("text", h5py.string_dtype()), np.zeros(2, [("a", "i4"), ("b", "S3")]),
        np.bool_(True), np.complex128(1),
    ],
    ids=str,
)  # fmt: skip
def test_attributes_of_any_type_are_refused(path: Path, name: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
        file.attrs[name] = value
    refused(path)


def test_what_a_store_says_of_itself_is_quoted_where_it_becomes_a_command(path: Path) -> None:
    edited(path, "backbone", {"backbone": "tiny; rm -rf ~", "precision": "$(id)"})
    assert "--backbone 'tiny; rm -rf ~'" in Store(path).options()
    assert "--precision '$(id)'" in Store(path).options()


def test_a_huge_attribute_is_refused_unread(path: Path) -> None:
    """HDF5 reads all of an attribute to tell how long it is."""
    with (
        h5py.File(path, "r") as old,
        h5py.File(path.with_name("new.h5"), "w", libver="latest") as new,
    ):
        for name in old:
            old.copy(name, new)
        for name, value in old.attrs.items():
            new.attrs[name] = value
        del new.attrs["provenance"]
        new.attrs.create("provenance", np.zeros((), "S300000000"))
    assert path.with_name("new.h5").stat().st_size > 300_000_000
    refused_within(path.with_name("new.h5"), 100)


@pytest.mark.parametrize("size", [2**31, 2**32 - 2**20])
def test_a_header_of_gigabytes_is_refused_unread(path: Path, size: int) -> None:
    """HDF5 takes memory for whatever a header says it holds, if the file is as long."""
    content = bytearray(path.read_bytes())
    [header] = struct.unpack_from("<Q", content, 64)  # of the root group, in superblock 0
    assert content[header] == 1
    struct.pack_into("<I", content, header + 8, size)
    struct.pack_into("<Q", content, 40, size + 2**20)  # where the file ends
    path.write_bytes(content)
    os.truncate(path, size + 2**20)
    assert "bytes of structure" in refused_within(path, 100)


def replaced(path: Path, name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Put a dataset of holes in another's place: it states a size, and takes none."""
    with h5py.File(path, "r+") as file:
        del file[name]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, name.encode(), kind, space, plist)


def test_rows_of_holes_fill_no_memory(path: Path) -> None:
    n = 200_000_000
    for name, dtype in {
        "image": "<i8", "emotion": "i1", "usage": "i1", "group": "S4", "source": "S60",
        "checksum": "<u4",
    }.items():  # fmt: skip
        replaced(path, f"rows/{name}", (n,), dtype)
    assert "never written" in refused_within(path, 100)


def test_texts_and_embeddings_of_any_length_are_refused(path: Path) -> None:
    other = Path(shutil.copy(path, path.with_name("other.h5")))
    replaced(path, "rows/source", (20,), "S100000000")
    assert "dataset rows/source is of another type or shape" in refused_within(path, 100)
    replaced(other, "images/embeddings/final", (18, 30_000_000), "<f4")
    assert "embeddings of more than" in refused_within(other, 100)


def test_wide_embeddings_are_checked_a_few_at_a_time(path: Path) -> None:
    with h5py.File(path) as file:
        m = len(file["images/digest"])
    replaced(path, "images/embeddings/final", (m, 2**22), "<f4")  # 16 MB each
    code = (
        PEAK + "import sys\nfrom fer_features import Store\nstore = Store(sys.argv[1])\n"
        "before = peak()\n"
        "assert len(store.verify()) == len(store)\n"
        "print(peak() - before)"
    )
    took = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert int(took) < 220 * 1024


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe with a name")
@pytest.mark.parametrize(
    "name", ["images/digest", "rows/image", "images/embeddings/final", "images", "rows/source"]
)
def test_a_link_to_another_file_is_not_followed(path: Path, name: str) -> None:
    """Who opened the pipe would wait for ever."""
    os.mkfifo(path.with_name("pipe.h5"))
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink(str(path.with_name("pipe.h5")), "it")
    assert f"{name} is missing" in refused_within(path, 100)


@pytest.mark.parametrize("name", ["images/digest", "rows/source", "images/embeddings/final"])
def test_a_dataset_in_another_file_of_the_machine_is_refused(path: Path, name: str) -> None:
    secret = path.with_name("secret")
    secret.write_bytes(b"s3cret" * 100_000)
    with h5py.File(path, "r+") as file:
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        size = int(np.prod(shape)) * dtype.itemsize
        file.create_dataset(name, shape, dtype, external=[(str(secret), 0, size)])
    said = refused(path)
    assert "does not lie whole in the file" in said
    assert "s3cret" not in said


def test_a_shape_whose_size_overflows_is_refused(path: Path) -> None:
    """2**62 float32 are 0 bytes, as 64 bits count them."""
    content = path.read_bytes()
    with h5py.File(path) as file:
        m, d = file["images/embeddings/final"].shape
    dimensions = struct.pack("<QQ", m, d)
    assert content.count(dimensions) == 2  # the shape and the greatest shape
    path.write_bytes(content.replace(dimensions, struct.pack("<QQ", m, 2**62)))
    refused_within(path, 100)


def test_structures_of_noise_are_one_line_or_harmless(path: Path) -> None:
    """Bytes changed anywhere in what HDF5 keeps of the file, some of them to sizes and places."""
    whole = path.read_bytes()
    with h5py.File(path) as file:
        data = [
            (each.id.get_offset(), each.id.get_storage_size())
            for each in (file["images/digest"], file["images/embeddings/final"])
        ]
    inside = np.ones(len(whole), bool)
    for start, size in data:
        inside[start : start + size] = False
    places = np.flatnonzero(inside)
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.choice(places, rng.integers(1, 4)):
            content[place] = rng.choice([0, 1, 8, 127, 255, rng.integers(256)])
        path.write_bytes(content)
        try:
            store = Store(path)
            store.verify()
            store.to_frame()
            store.options()
            outcomes.append("harmless")
        except StoreError as error:
            outcomes.append(
                "refused" if str(error).isprintable() else "refused in control characters"
            )
    assert set(outcomes) == {"harmless", "refused"}
