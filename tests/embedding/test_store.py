"""The store: what is written is read back, and whatever is wrong with a file is said."""

import shutil
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import TINY, noise_faces

from fer_features import Store, extract
from fer_features.embedding.store import find_store
from fer_features.errors import StoreError

FACES = noise_faces(40)
DATASETS = ("embeddings", "emotion", "usage", "digest", "source", "checksum")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract(FACES, tmp_path_factory.mktemp("store") / "whole.h5", backbone=TINY).path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "faces.h5"))


def test_a_store_holds_the_source_row_by_row(path: Path) -> None:
    store = Store(path)
    assert len(store) == 40
    assert store.dimension == 16
    assert np.array_equal(store.emotion, FACES.emotion)
    assert np.array_equal(store.usage, FACES.usage)
    assert np.array_equal(store.digest, FACES.digest)
    assert np.array_equal(store.source, FACES.source)
    assert store.backbone == TINY.identity
    assert store.fingerprint == TINY.fingerprint
    assert store.dataset["rows"] == 40
    assert store.provenance["images"] == 38
    assert store.verify() == []


def test_rows_come_in_the_order_asked_for(path: Path) -> None:
    store = Store(path)
    everything = store.embeddings()
    assert everything.dtype == np.float32
    assert np.array_equal(store.embeddings([9, 0, 9, 39]), everything[[9, 0, 9, 39]])
    assert store.embeddings([]).shape == (0, 16)


def test_the_file_is_what_the_specification_says(path: Path) -> None:
    with h5py.File(path) as file:
        assert set(file) == set(DATASETS)
        assert set(file.attrs) == {
            "format",
            "format_version",
            "backbone",
            "fingerprint",
            "dataset",
            "provenance",
        }
        for name in DATASETS:
            assert file[name].chunks is None
            assert file[name].id.get_offset() is not None
        row = 5
        said = b"".join(file[name][row].tobytes() for name in ("embeddings", "digest"))
        said += file["emotion"][row].tobytes() + file["usage"][row].tobytes()
        assert file["checksum"][row] == zlib.crc32(said + file["source"][row])


@pytest.mark.parametrize("name", DATASETS)
def test_a_single_flipped_bit_is_found_and_its_row_named(path: Path, name: str) -> None:
    with h5py.File(path) as file:
        dataset = file[name]
        offset = dataset.id.get_offset() + 13 * (dataset.id.get_storage_size() // 40)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)
    store = Store(path)
    assert store.verify() == [13]
    with pytest.raises(StoreError, match=r"row 13 is damaged.*--repair"):
        store.embeddings([2, 13])
    assert len(store.embeddings([2, 12])) == 2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_file_cut_short_is_one_error(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StoreError, match=r"faces\.h5: .*expected"):
        Store(path).verify()


def test_foreign_and_newer_files_are_refused(path: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = [1, 2]
    with pytest.raises(StoreError, match="without the attribute format"):
        Store(tmp_path / "foreign.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(StoreError, match=r"format_version 2, expected 1\. Upgrade"):
        Store(path)


def test_a_missing_dataset_or_attribute_is_named(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["usage"]
    with pytest.raises(StoreError, match="dataset usage is missing"):
        Store(path)


def test_a_backbone_that_is_not_the_fingerprints_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["fingerprint"] = "0" * 64
    with pytest.raises(StoreError, match="fingerprint is not that of its backbone"):
        Store(path)


def test_the_only_store_is_found_and_several_are_named(path: Path, tmp_path: Path) -> None:
    assert find_store(None, tmp_path).path == path
    shutil.copy(path, tmp_path / "other.h5")
    with pytest.raises(StoreError, match=r"2 stores, expected one\. Name one of .*faces\.h5"):
        find_store(None, tmp_path)
    with pytest.raises(StoreError, match=r"no store .*fer-extract"):
        find_store(None, tmp_path / "nowhere")
