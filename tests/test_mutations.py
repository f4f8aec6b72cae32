"""Files as nobody wrote them are read, or refused in one line, in little memory and time."""

import shutil
from pathlib import Path

import h5py
import mutations
import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from support import TINY, noise_faces

from fer_features import DenseHead, LogisticHead, Task, compare, extract
from fer_features.experiment.result import fit_and_evaluate

ARCHIVES = Path(__file__).parent / "archives" / "v1"
MEGABYTES = 500
CLASSES = {"up": ["happiness", "anger", "fear"], "down": ["sadness", "disgust", "surprise"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of each kind that a reader takes, in a folder of its name."""
    home = tmp_path_factory.mktemp("whole")
    store = extract(noise_faces(60), home / "faces.h5", backbone=TINY)
    data = Task(CLASSES, per_class="all", duplicates="keep").select(store)
    fit_and_evaluate(DenseHead((4,), epochs=1), data, test=True).save(home / "run")
    fit_and_evaluate(GaussianNB(), data, test=True).save(home / "kept by skops")
    grid = {"logistic": {"C": [0.1, 1.0]}}
    compare(data, {"logistic": LogisticHead()}, grid=grid, seeds=[0], out=home / "comparison")
    return home


def write_weights(folder: Path) -> None:
    """Write so many numbers in both of Keras's layouts, in which texts are of any length."""
    with h5py.File(folder / "small.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((mutations.NUMBERS - 8, 1), np.float32)
        file["layers/conv2d/vars/1"] = np.ones(8, np.float32)
        file["layers/conv2d/vars"].attrs["name"] = "conv2d"
    with h5py.File(folder / "old.h5", "w") as file:
        file["conv/conv/kernel"] = np.ones((mutations.NUMBERS, 1), np.float32)
        file.attrs["layer_names"] = ["conv"]
        file["conv"].attrs["weight_names"] = ["conv/kernel"]


def check(found: dict[str, int], megabytes: int, count: int) -> None:
    assert set(found) == {"read", "refused"}
    assert sum(found.values()) == count
    assert found["refused"] > count / 4
    assert megabytes < MEGABYTES


@pytest.mark.parametrize("reader", ["weights", "run"])
def test_some_damaged_files_are_read_or_refused(tmp_path: Path, reader: str) -> None:
    shutil.copytree(next((ARCHIVES / "comparison" / "fits").iterdir()), tmp_path / "run")
    write_weights(tmp_path)
    folder = tmp_path / "run" if reader == "run" else tmp_path
    check(*mutations.outcomes(reader, folder, 30, seed=1), 30)


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["run", "kept by skops", "comparison"])
def test_thousands_of_damaged_runs_are_read_or_refused(folders: Path, reader: str) -> None:
    check(*mutations.outcomes(reader, folders / reader, 3000), 3000)


@pytest.mark.slow
def test_thousands_of_damaged_stores_are_read_or_refused(tmp_path: Path) -> None:
    shutil.copy(ARCHIVES / "store.h5", tmp_path)
    check(*mutations.outcomes("store", tmp_path, 3000), 3000)


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["weights", "keras"])
def test_thousands_of_damaged_networks_are_loaded_or_refused(tmp_path: Path, reader: str) -> None:
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    from fer_features.runtimes import plain_keras

    with plain_keras() as keras:
        network = mutations.small(keras)
        network.save(tmp_path / "small.keras")
        network.save_weights(tmp_path / "small.weights.h5")
        with h5py.File(tmp_path / "old.h5", "w") as file:
            save_weights_to_hdf5_group(file, network)
    check(*mutations.outcomes(reader, tmp_path, 3000, with_keras=True), 3000)
