"""A complete store, open for reading: embeddings by image, labels by row."""

import difflib
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from fer_features.embedding.applications import APPLICATIONS
from fer_features.embedding.backbone import FINAL, FREE_SIZE, TINY, TINY_SIZE, fingerprint
from fer_features.embedding.layout import (
    ROW_FIELDS,
    DamagedStoreError,
    Positions,
    checksums,
    dimensions,
    known_outputs,
    naming_damage,
    opened,
    read_images,
    read_json,
    read_text,
    row_checksums,
)
from fer_features.errors import StoreError
from fer_features.faces.dataset import SIDE
from fer_features.faces.emotions import EMOTIONS, USAGES

if TYPE_CHECKING:
    import pandas as pd

CACHE = Path("cache")
"""Where stores go by default, relative to where a command runs."""


class Store:
    """A complete store, open for reading.

    Images are distinct and have embeddings; rows are what the source holds, in its order, and have
    labels. Copies are rows of one image.

    Parameters
    ----------
    path : path-like
        The HDF5 file; ``cache/README.md`` specifies its format.

    Attributes
    ----------
    path : Path
        As it was given; the store is read where it lay then, also after a change of folder.
    backbone : dict
        Identity of the network that made the embeddings (:class:`BackboneSpec`'s).
    fingerprint : str
        Hex sha256 of that identity.
    dimensions : dict of str to int
        Length d of each output's vectors, by name; ``final`` first.
    dataset : dict
        ``name``, ``kind``, ``sha256`` of the source, ``image`` form, ``rows``, ``limit``,
        ``skipped``, ``left_out`` (how many by reason), ``map``, ``labels_as``, ``group_by``.
    provenance : dict
        ``passes``: a list, each with engine, versions, images, seconds, and so on.
    rows : dict of str to array (n,)
        What the file holds of each row: ``image``, ``emotion``, ``usage``, and as bytes in UTF-8
        ``group`` and ``source``.
    image_digest : uint8 (m, 32)
        sha256 of each image's form and pixels.

    Raises
    ------
    StoreError
        When the file is missing, no store, of a newer format, in use, or damaged in its
        structure.

    Examples
    --------
    >>> from fer_features import BackboneSpec, Store, extract
    >>> from fer_features.sample.faces import draw_faces
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> path = extract(draw_faces(70), "faces.h5", backbone=tiny).path
    >>> store = Store(path)
    >>> store.outputs, store.dimensions
    (('final',), {'final': 16})
    >>> store.embeddings(store.emotion == 3).shape  # the happy ones
    (20, 16)
    >>> list(store.to_frame().columns)
    ['source', 'image', 'emotion', 'usage', 'group']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = self.path.absolute()
        with opened(self.path, "r") as file, naming_damage(self.path):
            self._state = _state(self._file)
            self.backbone: dict[str, Any] = read_json(file, "backbone", self.path)
            self.dataset: dict[str, Any] = read_json(file, "dataset", self.path)
            self.provenance: dict[str, Any] = read_json(file, "provenance", self.path)
            self.fingerprint = read_text(file, "fingerprint", self.path)
            self.dimensions = dimensions(file)
            self.image_digest: npt.NDArray[np.uint8] = file["images/digest"][()]
            self._checksum: npt.NDArray[np.uint32] = file["images/checksum"][()]
            self.rows: dict[str, npt.NDArray[Any]] = {
                name: file[f"rows/{name}"][()] for name in ROW_FIELDS
            }
            self._row_checksum: npt.NDArray[np.uint32] = file["rows/checksum"][()]
        if fingerprint(self.backbone) != self.fingerprint:
            raise DamagedStoreError(
                f"{self.path}: its fingerprint is not that of its backbone, expected equal ones. "
                "The file is damaged: extract it again with --overwrite."
            )
        self._intact_rows = row_checksums(self.rows) == self._row_checksum
        if not self._within().all():
            self._intact_rows &= self._within()
            self.rows["image"] = np.where(self._within(), self.rows["image"], 0)

    def __len__(self) -> int:
        return len(self._row_checksum)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name} {d:,}" for name, d in self.dimensions.items())
        return (
            f"Store({str(self.path)!r}: {len(self):,} rows, {len(self.image_digest):,} images, "
            f"{outputs})"
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what is kept of each image, tuple of str; ``final`` is the network's own."""
        return tuple(self.dimensions)

    @property
    def network(self) -> str:
        """What a reader calls the network, str: its name, and in what it is not as one expects."""
        network, passes = self.backbone, self.provenance.get("passes") or [{}]
        files = passes[-1].get("files", {})
        name, weights = str(network["backbone"]), str(network["weights"])
        usual = {TINY: TINY_SIZE}.get(name, FREE_SIZE)
        if name in APPLICATIONS:
            usual = APPLICATIONS[name].input_size
        if name.startswith("sha256:"):
            name = Path(files["backbone"]).stem if "backbone" in files else name[:15]
        said = [name]
        if weights.startswith("random:"):
            seed = weights.removeprefix("random:").partition("@")[0]
            said = [f"{name} (random weights{f' {seed}' if seed != '0' else ''})"]
        elif weights.startswith("sha256:"):
            said = [f"{name} ({Path(files.get('weights', weights[:15])).name})"]
        said += [network["precision"]] * (network["precision"] != "float32")
        said += [f"input {network['input_size']}"] * (network["input_size"] != usual)
        height, width, channels = network["image"]
        if [height, width, channels] != [SIDE, SIDE, 1]:
            said.append(f"{height}x{width}{' colour' * (channels == 3)}")
        return ", ".join(said)

    @property
    def image(self) -> Positions:
        """Each row's image, int64 (n,): its position among the m images."""
        return self.rows["image"]

    @property
    def emotion(self) -> npt.NDArray[np.int8]:
        """Ids, int8 (n,): 0 to 7 (:data:`~fer_features.faces.emotions.EMOTIONS`), -1 for none."""
        return self.rows["emotion"]

    @property
    def usage(self) -> npt.NDArray[np.int8]:
        """Ids, int8 (n,): 0 Training, 1 PublicTest, 2 PrivateTest, -1 for none."""
        return self.rows["usage"]

    @property
    def group(self) -> npt.NDArray[np.str_]:
        """What must not be split, str (n,); empty where there is no such thing."""
        return np.char.decode(self.rows["group"], "utf-8", "replace")

    @property
    def source(self) -> npt.NDArray[np.str_]:
        """Row numbers or relative file paths, str (n,)."""
        return np.char.decode(self.rows["source"], "utf-8", "replace")

    @property
    def digest(self) -> npt.NDArray[np.uint8]:
        """Each row's image's digest, uint8 (n, 32)."""
        return self.image_digest[self.image]

    def embeddings(
        self, rows: Any = None, features: str | Sequence[str] = FINAL
    ) -> npt.NDArray[np.float32]:
        """Return the embeddings of ``rows``, or of all rows.

        Parameters
        ----------
        rows : bool (n,), int (k,) or slice, optional
            A mask, positions (also negative ones) or a slice, as NumPy takes them.
        features : str or sequence of str
            ``final``, an inner layer, or several joined: ``"block10_add+block14_add"``.

        Returns
        -------
        float32 (k, d)
            In the order of ``rows``; of several outputs d is the sum of their lengths.

        Raises
        ------
        StoreError
            When the store has no such output, a checksum does not match what was read (the message
            names the rows), or the file was changed since it was opened.
        IndexError
            As NumPy's, when ``rows`` are not to be had.
        TypeError
            When ``rows`` is a text: features go by their name.
        """
        names = self.features(features)
        if isinstance(rows, str):
            raise TypeError(
                f"rows: {rows!r}, expected a mask, positions or a slice. Features go by their "
                f"name: embeddings(features={rows!r})."
            )
        wanted = np.asarray(np.arange(len(self))[... if rows is None else rows])
        images, place = np.unique(self.image[wanted], return_inverse=True)
        values = self.read_images(images, self.outputs)
        sums = checksums(self.image_digest[images], values)
        bad = sums != self._checksum[images]
        damaged = ~self._intact_rows[wanted] | bad[place.reshape(wanted.shape)]
        self._refuse_damaged(wanted[damaged])
        chosen = [values[name] for name in names]
        joined = chosen[0] if len(chosen) == 1 else np.concatenate(chosen, axis=1)
        return joined[place.reshape(wanted.shape)]

    def features(self, features: str | Sequence[str]) -> tuple[str, ...]:
        """Return the outputs that ``features`` names, a tuple of str, checked.

        Parameters
        ----------
        features : str or sequence of str
            As :meth:`embeddings` takes them.

        Raises
        ------
        StoreError
            When one is unknown or named twice, or there are none.
        """
        if isinstance(features, str):
            names = tuple(name.strip() for name in features.split("+"))
        else:
            names = tuple(features)
        for name in names:
            if name not in self.dimensions:
                near = difflib.get_close_matches(name, self.outputs, n=1)
                raise StoreError(
                    f"{self.path}: no features {name!r}, expected some of "
                    f"{', '.join(self.outputs)}. "
                    + ("Outputs are joined by +. " if "," in name else "")
                    + (f"Did you mean {near[0]}? " if near else "")
                    + f"Another layer is added with {self.command('--layers NAME')}."
                )
        if not names or len(set(names)) < len(names):
            raise StoreError(
                f"{self.path}: features {'+'.join(names)!r}, expected each output once. "
                "Name one, or several joined by +."
            )
        return names

    def options(self, **files: str) -> str:
        """Return the options of ``fer-extract`` that name this store's network and source, str.

        Layers are not among them, which a store keeps anyway.

        Parameters
        ----------
        **files : str
            ``backbone`` and ``weights``, the paths of the network's files, for which
            ``FILE.keras`` and ``FILE`` stand otherwise.
        """
        network, dataset = self.backbone, self.dataset
        said = []
        if str(network["backbone"]).startswith("sha256:"):
            said.append(f"--backbone {shlex.quote(files.get('backbone', 'FILE.keras'))}")
        else:
            said.append(f"--backbone {shlex.quote(network['backbone'])}")
            weights = str(network["weights"]).partition("@")[0]
            file = shlex.quote(files.get("weights", "FILE"))
            is_file = weights.startswith("sha256:")
            said.append(f"--weights {file if is_file else shlex.quote(weights)}")
        said.append(f"--input-size {network['input_size']}")
        if network["precision"] != "float32":
            said.append(f"--precision {shlex.quote(network['precision'])}")
        height, _, channels = network["image"]
        said += [f"--image-size {height}"] * (height != SIDE) + ["--color"] * (channels == 3)
        if dataset.get("limit") is not None:
            said.append(f"--limit {dataset['limit']}")
        pairs = (f"{word}={name}" for word, name in (dataset.get("map") or {}).items())
        said += [f"--map {shlex.quote(pair)}" for pair in pairs]
        for option in ("labels_as", "group_by"):
            if dataset.get(option) is not None:
                said.append(f"--{option.replace('_', '-')} {shlex.quote(dataset[option])}")
        return " ".join([*said, *["--skip-bad"] * bool(dataset.get("skipped"))])

    def command(self, option: str) -> str:
        """Return the ``fer-extract`` command that does more to this store, str.

        Parameters
        ----------
        option : str
            What more: ``--repair``, or ``--layers NAME``.
        """
        passes = self.provenance.get("passes") or [{}]
        options = self.options(**passes[-1].get("files", {}))
        return f"fer-extract SOURCE -o {self.path} {options} {option}"

    def to_frame(self) -> "pd.DataFrame":
        """Return a DataFrame, a line a row: what the file says of it, its embeddings aside.

        Returns
        -------
        DataFrame
            ``source`` (str), ``image`` (int64), ``emotion`` and ``usage`` (categories, by name) and
            ``group`` (str). Where a row has no emotion, usage or group the cell is missing (NA).

        Raises
        ------
        StoreError
            When labels are not what was written; the message names the rows.
        """
        import pandas as pd

        self.check_labels()

        def words(ids: npt.NDArray[np.int8], names: Sequence[str]) -> "pd.Categorical[str]":
            return pd.Categorical.from_codes(ids, categories=pd.Index(names))

        group = pd.Series(self.group, dtype="str")
        return pd.DataFrame(
            {
                "source": pd.Series(self.source, dtype="str"),
                "image": self.image,
                "emotion": words(self.emotion, EMOTIONS),
                "usage": words(self.usage, USAGES),
                "group": group.where(group != ""),
            }
        )

    def known(self) -> npt.NDArray[np.int64]:
        """Return of each image how many of the outputs are intact, int64 (m,): the first ones.

        Raises
        ------
        StoreError
            When the file was changed since it was opened, or cannot be read.
        """
        with self._opened_again() as file:
            return known_outputs(file)

    def read_images(
        self, images: Positions, outputs: Sequence[str]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return outputs of images, float32 (k, d) by name, without a look at checksums.

        Parameters
        ----------
        images : int64 (k,)
            Positions among the m images, not rows.
        outputs : sequence of str
            Names that the store has.

        Raises
        ------
        StoreError
            When the file was changed since it was opened, or cannot be read.
        """
        with self._opened_again() as file:
            return {
                name: read_images(file[f"images/embeddings/{name}"], images) for name in outputs
            }

    def verify(self) -> list[int]:
        """Return the rows of which any bit differs from what was written, by CRC-32.

        A row counts its labels, its image's digest and all of that image's embeddings.

        Returns
        -------
        list of int
            Counted from 0, ascending; empty where all is well.

        Raises
        ------
        StoreError
            When the file was changed since it was opened, or cannot be read.
        """
        intact = self._intact_rows & (self.known() == len(self.outputs))[self.image]
        return np.flatnonzero(~intact).tolist()

    def check_labels(self) -> None:
        """Check that every row's labels are what was written, before rows are chosen by them.

        Raises
        ------
        StoreError
            When they are not; the message names the rows.
        """
        self._refuse_damaged(np.flatnonzero(~self._intact_rows))

    @contextmanager
    def _opened_again(self) -> Iterator[h5py.File]:
        """Open the file, whose images are those in memory only while nobody replaces it."""
        with opened(self._file, "r") as file, naming_damage(self.path):
            if _state(self._file) != self._state:
                raise StoreError(
                    f"{self.path}: changed since it was opened, expected the same file. "
                    "Open it again."
                )
            yield file

    def _refuse_damaged(self, rows: Positions) -> None:
        if len(rows):
            raise StoreError(
                f"{self.path}: {name_rows(sorted(set(rows.tolist())))} damaged, expected "
                "embeddings and labels that match their checksums. Mend it with "
                f"{self.command('--repair')}."
            )

    def _within(self) -> npt.NDArray[np.bool_]:
        image = self.image
        return (image >= 0) & (image < len(self.image_digest))


def find_store(path: Path | None, folder: Path = CACHE) -> Store:
    """Open the store at ``path``, or the only one in ``folder`` if no path is given.

    Raises
    ------
    StoreError
        When there is none, or none is named and the folder holds several.
    """
    if path is not None:
        return Store(path)
    found = sorted(folder.glob("*.h5"))
    if len(found) == 1:
        return Store(found[0])
    if not found:
        raise StoreError(
            f"{folder}: no store (*.h5), expected one. Make it with fer-extract, or name one."
        )
    names = ", ".join(str(each) for each in found)
    raise StoreError(f"{folder}: {len(found)} stores, expected one. Name one of {names}.")


def name_rows(rows: list[int], most: int = 5) -> str:
    """Return ``"row 7 is"`` or ``"rows 7, 9 and 40 more are"``, counted from 0 as in the file."""
    if len(rows) == 1:
        return f"row {rows[0]} is"
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"rows {', '.join(map(str, rows[:most]))}{more} are"


def _state(path: Path) -> tuple[int, int, int]:
    """Return what tells a file from one that took its place or was written since."""
    said = path.stat()
    return said.st_ino, said.st_size, said.st_mtime_ns
