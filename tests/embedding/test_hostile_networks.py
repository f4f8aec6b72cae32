"""A network may come from anyone: what Keras would do with it is known before Keras does it."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import mutations
import numpy as np
import pytest

from fer_features.embedding.weights import (
    count_parameters,
    inspect_keras_file,
    load_keras_file,
    load_weights,
)
from fer_features.errors import BackboneError


@pytest.fixture(scope="module")
def network() -> Any:
    from fer_features.runtimes import plain_keras

    with plain_keras() as keras:
        return mutations.small(keras)


@pytest.fixture(scope="module")
def whole(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.keras"
    network.save(path)
    return path


def changed(
    whole: Path, path: Path, name: str, change: Callable[[bytes], bytes], packing: int = 0
) -> Path:
    """Write a ``.keras`` file with one of its members changed."""
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w", packing) as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, change(content) if info.filename == name else content)
    return path


def wider(config: bytes) -> bytes:
    """Describe a layer of a billion numbers: 4 GB."""
    model = json.loads(config)
    dense = next(each for each in model["config"]["layers"] if each["class_name"] == "Dense")
    dense["config"]["units"] = 2**27
    return json.dumps(model).encode()


def test_a_network_that_describes_more_than_it_holds_takes_no_memory(
    whole: Path, tmp_path: Path
) -> None:
    load_keras_file(whole)
    path = changed(whole, tmp_path / "wide.keras", "config.json", wider)
    inspect_keras_file(path)
    before = mutations.peak()
    with pytest.raises(BackboneError, match=r"describes 1,207,960,\d+ numbers and holds 6\d\d\)"):
        load_keras_file(path)
    load_keras_file(whole)  # nothing that was described is made up for later
    assert mutations.peak() - before < 200 * 1024


def test_weights_that_are_not_there_are_refused_unread(whole: Path, tmp_path: Path) -> None:
    def stated(weights: bytes) -> bytes:
        held = io.BytesIO(weights)
        with h5py.File(held, "r+") as file:
            del file["layers/dense/vars/1"]
            file.create_dataset("layers/dense/vars/1", (2**32,), np.float32, chunks=(2**16,))
        return held.getvalue()

    path = changed(whole, tmp_path / "stated.keras", "model.weights.h5", stated)
    with pytest.raises(BackboneError, match=r"states more numbers than it has bytes"):
        inspect_keras_file(path)
    assert count_parameters(path) is None


def test_weights_that_are_packed_once_more_are_refused(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "packed.keras"
    changed(whole, path, "model.weights.h5", lambda held: held + bytes(10**6), zipfile.ZIP_DEFLATED)
    with pytest.raises(BackboneError, match=r"its model\.weights\.h5 is compressed\)"):
        inspect_keras_file(path)


def test_weights_before_which_something_else_lies_are_found(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "later.keras"
    path.write_bytes(b"before" + whole.read_bytes())
    assert inspect_keras_file(path).layers == inspect_keras_file(whole).layers
    assert count_parameters(path) == count_parameters(whole) == mutations.NUMBERS
    shutil.copy(whole, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", "bytes")
    assert count_parameters(path) == mutations.NUMBERS


def test_damage_of_which_hdf5_itself_ends_ends_nothing(network: Any, tmp_path: Path) -> None:
    """Keras's earlier layout has lists of texts, of which HDF5 believes what type they are."""
    from fer_features.runtimes import plain_keras

    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file["conv/conv/kernel"] = np.ones((4, 4), np.float32)
        file.attrs["layer_names"] = ["conv"]
        file["conv"].attrs["weight_names"] = ["conv/kernel"]
    content = bytearray(path.read_bytes())
    text = b"\x19\x01\x01\x00\x10\x00\x00\x00"  # a type: of any length, a text, in UTF-8
    assert content.count(text) == 2
    content[content.index(text) + 1] = 8
    path.write_bytes(content)
    with plain_keras(), pytest.raises(BackboneError, match="damaged so that HDF5 itself fails"):
        load_weights(network, path, "small")


def test_what_a_process_has_before_is_not_counted_as_the_files(whole: Path, tmp_path: Path) -> None:
    """NumPy takes 40 MB for every core, and that is gigabytes on large machines."""
    path = tmp_path / "whole.weights.h5"
    path.write_bytes(zipfile.ZipFile(whole).read("model.weights.h5"))
    read = "import sys; from fer_features import hdf5; hdf5._read_all(*sys.argv[1:])"
    for held in (0, 2**31):
        words = [sys.executable, "-c", f"held = bytearray({held}); {read}", path, "0", "0"]
        assert subprocess.run(words).returncode == 0
