"""A classification task on a store: which rows, whose labels, which class, which split.

But for the file of labels, which is read anew, everything here is a pure function of each row's
emotion, usage, digest and group.
"""

import hashlib
import html
import logging
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from fer_features.errors import OptionError, SourceError, TaskError
from fer_features.experiment.drawing import (
    Rows,
    check_all_emotions,
    check_same_rows,
    check_usages,
    count_copies,
    draw,
    groups_by,
    groups_said,
    image_keys,
    labels_of,
    labels_said,
    nested_order,
    one_copy_each,
    one_usage_each,
    places,
    split_at_random,
    split_by_usage,
    test_on_said,
    unknown_images,
)
from fer_features.faces.emotions import EMOTIONS, NONE, Wording, did_you_mean, emotion_of
from fer_features.faces.folder import compiled
from fer_features.faces.labels import checked_agreement, read_labels

if TYPE_CHECKING:
    from fer_features.embedding.store import Store

Classes: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]

DEFAULT_CLASSES: Classes = (
    ("positive", ("happiness",)),
    ("negative", ("anger", "fear", "sadness")),
)
"""The original experiment's task: happiness against anger, fear and sadness."""

ALL = "all"
"""Instead of classes: one for each emotion that the data have."""

REST = "rest"
"""Instead of a class's emotions: all that no other class has."""

PER_CLASS = 8500
"""Images drawn of each class by default, as in the original experiment."""

SPLITS = ("random", "usage")
DUPLICATES = ("drop", "keep")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, row by row.

    Parameters
    ----------
    X : float32 (n, d)
        Embeddings.
    y : str (n,)
        Class names.
    emotion : int8 (n,)
        Ids, 0 to 7, those of the task's labels.
    digest : uint8 (n, 32)
        sha256 of each image's pixels.
    source : str (n,)
        Row number or relative file path of each image in its source.
    group : str (n,), optional
        The person or sequence of each image; empty for none.
    votes : int64 (n, 9), optional
        How many raters said each emotion, and at last how many none of them; None without votes.
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.str_]
    emotion: npt.NDArray[np.int8]
    digest: npt.NDArray[np.uint8]
    source: npt.NDArray[np.str_]
    group: npt.NDArray[np.str_] = None  # type: ignore[assignment]  # below: n empty strings
    votes: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.group is None:
            object.__setattr__(self, "group", np.full(len(self.y), ""))

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Split({len(self):,} images)"


@dataclass(frozen=True, eq=False)
class Data:
    """A task's images, read from a store and split.

    Attributes
    ----------
    classes : tuple of str
        Class names in the task's order, the positive one first.
    split : dict
        Ready for JSON: ``protocol``, ``seed``, ``duplicates``, ``per_class``, ``sizes`` (images
        by split and class), ``rows`` (:func:`rows_sha256`), ``leaked`` (test images that also
        occur in training and in validation, validation images that also occur in training, and
        images of a group that is also there) and ``copies`` (``rows`` of the task's emotions in
        the store, their distinct ``images``, and how many of those are ``disagreeing``). Where
        rows have groups, ``groups``: their ``count``, the regex that they come ``by`` (null: the
        store's own) and the rows ``left_out`` for them. Where labels are not the store's own,
        ``labels``: the file's ``name``, ``path`` and ``sha256``, ``kind``, ``column``,
        ``min_agreement``, ``labels_as``, ``map``, and how many rows have an emotion
        (``labelled``), have none now (``none``; ``lost`` of them had one), have another emotion
        than the store gives them (``changed``, of the ``both`` that have one either way) and are
        in another class, or in or out of the task, for it (``changed_class``), and how many
        labels match no row (``unmatched``). Where raters' votes were joined, ``raters``: their
        file's ``name``, ``path`` and ``sha256``. Where test is another data set, ``test_on``: its
        name (``dataset``), its source's ``sha256``, its ``rows``, those of them ``outside`` the
        task's emotions, the distinct ``images`` of the others, how many of these are
        ``disagreeing`` and how many are ``left_out`` as the first data set has them, too.
    store : dict
        Ready for JSON: where the embeddings come from (``name``, ``path``, ``network`` as a
        reader calls it, ``features``, ``dimension``, ``outputs``, ``options`` of ``fer-extract``,
        ``fingerprint``, ``backbone``, ``dataset``, ``provenance``). ``test_on``: the ``name`` and
        ``path`` of the store of the test images, where that is another one. ``rows_of``: those of
        the store that the rows were chosen of, where that is another one, and its ``test_on``.
    """

    task: "Task"
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    split: dict[str, Any]
    store: dict[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in self.parts().items())
        numbers = f"{self.train.X.shape[1]:,} numbers of {self.store.get('features')}"
        return f"Data({', '.join(self.classes)}: {sizes} images, {numbers})"

    def _repr_html_(self) -> str:
        counts = {
            name: {label: int((part.y == label).sum()) for label in self.classes}
            for name, part in self.parts().items()
        }
        return f"<p>{html.escape(repr(self))}</p>{pd.DataFrame(counts).to_html()}"

    @cached_property
    def leaks(self) -> dict[str, list[str]]:
        """For each image of validation and test the split, ``train`` before ``validation``, that
        holds it, or another image of its group, as well; "" where none does."""
        return {
            "validation": _leaks(self.validation, train=self.train),
            "test": _leaks(self.test, validation=self.validation, train=self.train),
        }

    def on(
        self,
        store: "Store",
        features: str | Sequence[str] = "final",
        *,
        test_store: "Store | None" = None,
    ) -> "Data":
        """Return the very rows of this data, with embeddings of another store.

        So networks and their layers are compared on the same images, image by image. Rows match
        by their source, in whichever order they are, and all rows of both stores must. Splits,
        labels, copies and digests stay the first store's; images may have another form here.

        Parameters
        ----------
        store : Store
            Of the same source; or the very store, for other features of it.
        features : str or sequence of str
            As :meth:`Task.select` takes them.
        test_store : Store, optional
            The test images by the network of `store`, where they are another data set's
            (:meth:`tested_on`). Not needed where that is this data's own network.

        Raises
        ------
        TaskError
            Rows, or the emotions, usages or groups of some, are not the same.
        StoreError
            A store lacks the features, or rows of it are damaged.
        """
        outputs = _checked_store(store).features(features)
        first = self.store.get("rows_of") or self.store
        stores = dict.fromkeys(self.parts(), (first, store))
        if "test_on" in first:
            if test_store is None and store.fingerprint == self.store["fingerprint"]:
                test_store = _opened(self.store["test_on"])
            if test_store is None or test_store.fingerprint != store.fingerprint:
                raise TaskError(
                    f"test_store: {test_store and str(test_store.path)!r}, expected the test "
                    f"images' store of the network of {store.path}. Extract them with "
                    f"{store.options()}."
                )
            stores["test"] = (first["test_on"], test_store)
        rows = _same_rows(stores, self.parts())
        splits: dict[str, Any] = {
            name: replace(part, X=stores[name][1].embeddings(rows[name], outputs))
            for name, part in self.parts().items()
        }
        origin = _origin(store, outputs)
        if "test_on" in first:
            origin["test_on"] = _place(stores["test"][1])
        if first["path"] != origin["path"]:
            origin["rows_of"] = {name: first[name] for name in _PLACE if name in first}
        return replace(self, **splits, store=origin)

    def tested_on(self, store: "Store") -> "Data":
        """Return this data with another data set's images as its test images.

        The field's cross-database protocol: training and validation stay, and test becomes every
        image of the task's emotions in `store`, one copy each, but for those that occur anywhere
        in this data's store, in whichever split or class. Emotions and groups are the store's own.

        Parameters
        ----------
        store : Store
            Another data set under the same network, with the features that this data has.

        Raises
        ------
        TaskError
            It is of another network, or leaves no image; or this data's rows are another
            store's (:meth:`on`) or tested elsewhere already.
        StoreError
            It lacks the features, or rows of it are damaged.
        """
        if {"rows_of", "test_on"} & self.store.keys():
            raise TaskError(
                "tested_on: called on data that on() or tested_on() returned, expected what "
                "Task.select returned. Call it first, and on() after it."
            )
        if _checked_store(store).fingerprint != self.store["fingerprint"]:
            raise TaskError(
                f"{store.path}: of the network {store.network}, {store.fingerprint[:8]}, expected "
                f"{self.store['network']}, {self.store['fingerprint'][:8]}, as the training images "
                f"have. Extract it with {self.store['options']}."
            )
        store.check_labels()
        outputs = store.features(self.store["features"])
        known = _opened(self.store).image_digest
        table = self.task._table(store.emotion, store.usage, store.group)
        rows, counts = unknown_images(store, table, known)
        if not len(rows):
            raise TaskError(
                f"{store.path}: no image to test on: {counts['images']:,} are of the task's "
                f"emotions, {counts['disagreeing']:,} of which have copies that disagree, and "
                f"{counts['left_out']:,} are in {self.store['name']}, too; expected others. Name "
                "another data set."
            )
        dataset = store.dataset["name"]
        # A name of another data set is another person's.
        group = np.array([each and f"{dataset}/{each}" for each in store.group[rows].tolist()])
        label = self.task.class_of(store.emotion[rows])
        test = Split(
            X=store.embeddings(rows, outputs),
            y=np.array(self.classes)[label],
            emotion=store.emotion[rows],
            digest=store.digest[rows],
            source=store.source[rows],
            group=group.astype(np.str_),
        )
        splits = self.parts() | {"test": test}
        split = self.split | self.task._describe(splits)
        groups = set(np.concatenate([part.group for part in splits.values()]).tolist()) - {""}
        if groups:
            own = {"by": None, "left_out": 0} | split.get("groups", {})
            split["groups"] = own | {"count": len(groups)}
        split["test_on"] = {"dataset": dataset, "sha256": store.dataset["sha256"], **counts}
        log.info("%s", test_on_said(split["test_on"], len(test), self.store["dataset"]["name"]))
        origin = self.store | {"test_on": _place(store)}
        return replace(self, test=test, split=split, store=origin)

    def with_raters(self, path: str | os.PathLike[str]) -> "Data":
        """Return this data with the votes of raters, whatever its labels are.

        Parameters
        ----------
        path : path-like
            A file of FER+'s votes on the rows of the store; where test images are another data
            set's, on the rows of that.

        Raises
        ------
        SourceError
            The file cannot be read, holds no votes, or is not of these rows.
        """
        file = read_labels(path)
        if file.votes is None:
            raise SourceError(
                f"{file.name}: one emotion an image, expected votes of several raters, such as "
                "FER+'s. Leave it out, or take it for labels."
            )
        first = self.store.get("rows_of") or self.store
        store = _opened(first.get("test_on") or first)
        votes = file.join(store.source, store.digest, store.usage, store.dataset).votes
        assert votes is not None
        names = ["test"] if "test_on" in first else list(self.parts())
        splits: dict[str, Any] = {
            name: replace(part, votes=votes[places(store, part.source)] if name in names else None)
            for name, part in self.parts().items()
        }
        raters = {"name": file.name, "path": str(Path(path).absolute()), "sha256": file.sha256}
        return replace(self, **splits, split=self.split | {"raters": raters})

    def parts(self) -> dict[str, Split]:
        """Return the three splits by their names."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame, a line an image: split, source, digest (hex), emotion, class, group.

        Where an image has no group the cell is missing (NA).
        """
        frames = [
            pd.DataFrame(
                {
                    "split": name,
                    "source": pd.Series(part.source, dtype="str"),
                    "digest": [bytes(each).hex() for each in part.digest],
                    "emotion": [EMOTIONS[each] for each in part.emotion],
                    "class": pd.Series(part.y, dtype="str"),
                    "group": pd.Series(part.group, dtype="str").where(part.group != ""),
                }
            )
            for name, part in self.parts().items()
        ]
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Task:
    """Which emotions make up which class, and how the rows are drawn and split.

    Parameters
    ----------
    classes : mapping of str to str or sequence of str, or "all"
        Class names and their emotions (:data:`fer_features.faces.emotions.EMOTIONS`, or words
        for them as sources may use), or "rest" for all that no other class has; the first class
        is the positive one. Kept as a tuple of pairs, so that equal tasks compare equal
        and hash alike; ``dict(task.classes)`` gives the mapping back. "all" is a class for each
        emotion that the data have; ``Data.task`` names them.
    per_class : int, "min", "all" or None
        Images drawn of each class: a number, as many as the smallest class has, or all. None
        means 8500 for the default classes with the random split and the store's own labels, else
        "all".
    split : str
        "random", the default, is 60 % training, 20 % validation and 20 % test, stratified by class;
        where images have groups, none is in two splits, and sizes and classes are as near to that
        as they allow. "usage" is FER2013's own: Training, PublicTest (validation), PrivateTest
        (test); without PublicTest a stratified 20 % of Training is validation.
    split_seed : int
        Seed of the draw, the shuffle and the split, 0 to 2**32 - 1.
    duplicates : str
        "drop", the default: an image whose copies, over all labelled rows, fall into more than one
        of {each class, outside the task} is left out, and of others one copy stays: the first, with
        ``split="usage"`` the first of test, then validation, then training. With
        ``split="usage"`` images whose group occurs in a later one of these are left out, too.
        "keep": the original protocol, row for row; what leaks is counted.
    labels : path-like, optional
        A file of labels that replace the store's emotions
        (:func:`fer_features.faces.labels.read_labels`). Rows that it does not name have none.
    min_agreement : float
        0 to 1. Of FER+'s votes, the winner's least share; below, an image has no emotion.
    labels_as : str, optional
        Whose numbers a file of labels has (:data:`fer_features.faces.emotions.ORDERS`).
    map : mapping of str to str
        What words or numbers in a file of labels mean: an emotion, or "none". Kept as pairs.
    group_by : str, optional
        A regular expression, searched for in each row's source: its first group, in parentheses,
        is the person or sequence that must not be split. Without it the store's own groups are.

    Raises
    ------
    TaskError
        If a field has a bad value.

    Examples
    --------
    >>> from fer_features import BackboneSpec, Task, extract
    >>> from fer_features.sample.faces import draw_faces
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> store = extract(draw_faces(140), "faces.h5", backbone=tiny)
    >>> task = Task({"smile": "happiness", "rest": ["sadness", "neutral"]}, per_class="min")
    >>> data = task.select(store)
    >>> data.classes, data.train.X.shape, data.train.X.dtype
    (('smile', 'rest'), (40, 16), dtype('float32'))
    >>> {name: len(part) for name, part in data.parts().items()}
    {'train': 40, 'validation': 14, 'test': 14}
    """

    classes: Mapping[str, str | Sequence[str]] | Classes | str = DEFAULT_CLASSES
    per_class: int | str | None = None
    split: str = "random"
    split_seed: int = 42
    duplicates: str = "drop"
    labels: str | os.PathLike[str] | None = None
    min_agreement: float = 0.0
    labels_as: str | None = None
    map: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    group_by: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", checked_classes(self.classes))
        _check_choice("split", self.split, SPLITS)
        _check_choice("duplicates", self.duplicates, DUPLICATES)
        seed = self.split_seed
        if not _is_int(seed) or not 0 <= seed < 2**32:
            raise TaskError(f"split_seed: {seed!r}, expected a whole number from 0 to 4294967295.")
        object.__setattr__(self, "split_seed", int(seed))
        self._check_labels()
        per_class = self.per_class
        if per_class is None or (isinstance(per_class, str) and per_class in ("min", "all")):
            return
        if not _is_int(per_class) or int(per_class) < 1:
            raise TaskError(
                f"per_class: {per_class!r}, expected a whole number above 0, 'min' or 'all'."
            )
        object.__setattr__(self, "per_class", int(per_class))

    def _check_labels(self) -> None:
        try:
            wording = Wording(self.map, self.labels_as)
            object.__setattr__(self, "min_agreement", checked_agreement(self.min_agreement))
            if self.group_by is not None:
                compiled(self.group_by)
        except OptionError as error:
            raise TaskError(str(error)) from None
        except (TypeError, ValueError):
            raise TaskError(
                f"map: {self.map!r}, expected a mapping of words to emotions, such as "
                '{"joyful": "happiness"}.'
            ) from None
        object.__setattr__(self, "map", wording.map)
        object.__setattr__(self, "labels_as", wording.labels_as)
        if self.labels is not None:
            if not isinstance(self.labels, str | os.PathLike):
                raise TaskError(f"labels: {self.labels!r}, expected the path of a file.")
            object.__setattr__(self, "labels", os.fspath(self.labels))
            return
        for name in ("min_agreement", "labels_as", "map"):
            if getattr(self, name):
                raise TaskError(
                    f"{name}: given without a file of labels, which it is for. Add labels=FILE, "
                    "or leave it out."
                )

    @classmethod
    def all_emotions(cls, **options: Any) -> "Task":
        """Return the task of telling apart all emotions that the data have, a class each.

        Parameters
        ----------
        **options : Any
            The other parameters of a Task, by name.

        Returns
        -------
        Task
            Its ``classes`` are "all".

        Raises
        ------
        TaskError
            If one has a bad value.
        """
        return cls(ALL, **options)

    @property
    def emotions(self) -> dict[str, tuple[str, ...]]:
        """Class names and their emotions, in order: dict of str to tuple of str.

        Of "all" these are all eight emotions, each a class.
        """
        if isinstance(self.classes, str):
            return {name: (name,) for name in EMOTIONS}
        return {name: tuple(emotions) for name, emotions in dict(self.classes).items()}

    @property
    def images_per_class(self) -> int | str:
        """``per_class`` with its default filled in: int, "min" or "all"."""
        if self.per_class is not None:
            return self.per_class
        original = (self.classes, self.split, self.labels) == (DEFAULT_CLASSES, "random", None)
        return PER_CLASS if original else "all"

    def resolved(self, emotion: npt.NDArray[np.int8]) -> "Task":
        """Return the task with a class for each emotion that occurs, if it is to have those.

        Parameters
        ----------
        emotion : int8 (n,)
            Ids as in a store; -1 is none.

        Returns
        -------
        Task
            This one, unless its ``classes`` are "all": then these are named instead, in the order
            of :data:`~fer_features.faces.emotions.EMOTIONS`.

        Raises
        ------
        TaskError
            If no row has an emotion, or "all" is to tell apart one and the same.
        """
        if not np.any(emotion != NONE):
            raise TaskError(
                "no row has an emotion, expected a labelled source. Give labels=FILE; or, where a "
                "column of the source has another name, rename it to emotion and extract again, "
                "which computes nothing anew."
            )
        if self.classes != ALL:
            return self
        found = [EMOTIONS[each] for each in check_all_emotions(emotion)]
        return replace(self, classes={name: (name,) for name in found})

    def class_of(self, emotion: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
        """Return each row's class as its position in :attr:`emotions`, -1 outside the task.

        Parameters
        ----------
        emotion : int8 (n,)
            Ids as in a store; -1 is none.

        Returns
        -------
        int64 (n,)
        """
        labels = np.full(len(emotion), NONE, dtype=np.int64)
        for label, emotions in enumerate(self.emotions.values()):
            labels[np.isin(emotion, [EMOTIONS.index(name) for name in emotions])] = label
        return labels

    def rows(
        self,
        emotion: npt.NDArray[np.int8],
        usage: npt.NDArray[np.int8],
        digest: npt.NDArray[np.uint8],
        group: npt.NDArray[np.str_] | None = None,
    ) -> Rows:
        """Draw and split the task's rows, of labels that are given.

        The draw, the shuffle and the split at random are the original's pandas ``sample`` and
        scikit-learn ``train_test_split``; where rows have groups, scikit-learn's
        ``StratifiedGroupKFold`` splits.

        Parameters
        ----------
        emotion, usage : int8 (n,)
            Ids as in a store; -1 is none.
        digest : uint8 (n, 32)
            sha256 of each row's image; equal ones are copies.
        group : str (n,), optional
            What must not be split; empty for none. ``group_by`` and ``labels`` are for
            :meth:`select`, which knows the sources.

        Returns
        -------
        Rows
            ``train``, ``validation`` and ``test``: row numbers, int64, from 0.

        Raises
        ------
        TaskError
            If the rows have no emotions, are too few, or lack the usages the split needs; or
            groups are too few.
        """
        task = self.resolved(emotion)
        none = np.full(len(emotion), "")
        return task._drawn(task._table(emotion, usage, none if group is None else group), digest)[0]

    def select(self, store: "Store", features: str | Sequence[str] = "final") -> Data:
        """Read the task's embeddings from ``store`` and split them.

        What other labels and groups do to the rows is said by an INFO of logging.

        Parameters
        ----------
        store : Store
            Its rows are drawn and split.
        features : str or sequence of str
            What a head is given of each image: ``final``, an inner layer that the store keeps, or
            several, joined in that order: ``"block10_add+block14_add"``.

        Returns
        -------
        Data
            ``train``, ``validation`` and ``test``, each with ``X`` float32 (n, d) and ``y`` str
            (n,), the class names.

        Raises
        ------
        TaskError
            As :meth:`rows` does, with the store's path in front; ``group_by`` does not match a
            row's source; or it is no store.
        SourceError
            When the file of labels cannot be read, or is not of the store's rows.
        StoreError
            When the store lacks the features, rows of it are damaged, or the file was changed
            since it was opened.
        """
        outputs = _checked_store(store).features(features)
        store.check_labels()
        emotion, votes, labels = store.emotion, None, dict[str, Any]()
        if self.labels is not None:
            joined, labels = labels_of(
                store,
                str(self.labels),
                min_agreement=self.min_agreement,
                labels_as=self.labels_as,
                map=dict(self.map),
            )
            emotion, votes = joined.emotion, joined.votes
        try:
            task = self.resolved(emotion)
            label = task.class_of(emotion)
            group = store.group
            if self.group_by is not None:
                group = groups_by(self.group_by, store.source, label)
            table = task._table(emotion, store.usage, group)
            rows, left_out = task._drawn(table, store.digest)
        except TaskError as error:
            raise TaskError(f"{store.path}: {error}") from None
        names = np.array(list(task.emotions))
        splits = {
            part: Split(
                X=store.embeddings(chosen, outputs),
                y=names[label[chosen]],
                emotion=emotion[chosen],
                digest=store.digest[chosen],
                source=store.source[chosen],
                group=group[chosen],
                votes=None if votes is None else votes[chosen],
            )
            for part, chosen in rows._asdict().items()
        }
        origin = _origin(store, outputs)
        split = task._describe(splits) | {"copies": count_copies(table, store.digest)}
        if labels:
            changed = int((label != task.class_of(store.emotion)).sum())
            path = str(Path(str(self.labels)).absolute())
            split["labels"] = labels | {"changed_class": changed, "path": path}
            log.info("%s", labels_said(split["labels"], len(emotion)))
        count = len(set(group[np.concatenate(rows)]) - {""})
        if count or left_out:
            split["groups"] = {"count": count, "by": self.group_by, "left_out": left_out}
            log.info("%s", groups_said(split["groups"]))
        return Data(task, **splits, classes=tuple(task.emotions), split=split, store=origin)

    def _table(
        self,
        emotion: npt.NDArray[np.int8],
        usage: npt.NDArray[np.int8],
        group: npt.NDArray[np.str_],
    ) -> pd.DataFrame:
        columns = {"emotion": emotion, "usage": usage, "label": self.class_of(emotion)}
        return pd.DataFrame(columns | {"group": pd.Series(group, dtype="str")})

    def _drawn(self, table: pd.DataFrame, digest: npt.NDArray[np.uint8]) -> tuple[Rows, int]:
        """Return the rows of each split, and how many were left out for their groups."""
        by_usage = self.split == "usage"
        pool = table[table["label"] != NONE]
        if by_usage:
            check_usages(pool["usage"])
        left_out = 0
        if self.duplicates == "drop":
            pool = one_copy_each(table, digest, by_usage)
            if by_usage:
                left_out = len(pool)
                pool = one_usage_each(pool)
                left_out -= len(pool)
        names = list(self.emotions)
        drawn = draw(pool, names, self.images_per_class, self.split_seed)
        split = split_by_usage if by_usage else split_at_random
        return split(drawn, names, self.split_seed), left_out

    def _describe(self, splits: Mapping[str, Split]) -> dict[str, Any]:
        sizes = {
            part: {name: int((split.y == name).sum()) for name in self.emotions}
            for part, split in splits.items()
        }
        leaked = {}
        for name, part in (("test", "train"), ("test", "validation"), ("validation", "train")):
            images = set(image_keys(splits[part].digest))
            own = splits[name]
            leaked[f"{name}_in_{part}"] = sum(key in images for key in image_keys(own.digest))
            shared = np.isin(own.group, splits[part].group) & (own.group != "")
            leaked[f"{name}_groups_in_{part}"] = int(shared.sum())
        return {
            "protocol": self.split,
            "seed": self.split_seed,
            "duplicates": self.duplicates,
            "per_class": self.images_per_class,
            "sizes": sizes,
            "rows": rows_sha256(splits),
            "leaked": leaked,
        }


def checked_classes(classes: object) -> Classes | str:
    """Return ``classes`` as a tuple of (name, emotions) pairs or ``"all"``, or raise TaskError."""
    if isinstance(classes, str):
        if classes == ALL:
            return ALL
        raise TaskError(
            f'classes: {classes!r}, expected a mapping of class names to emotions, or "all".'
        )
    try:
        pairs = list(classes.items() if isinstance(classes, Mapping) else classes)  # type: ignore[call-overload]
        groups = [(name, (e,) if isinstance(e, str) else tuple(e)) for name, e in pairs]
    except (TypeError, ValueError):
        raise TaskError(
            f'classes: {classes!r}, expected a mapping of class names to emotions, or "all".'
        ) from None
    if len(groups) < 2:
        raise TaskError(
            f"classes: {len(groups)} given, expected two or more. Add another, such as "
            f"{{'others': '{REST}'}} of all other emotions."
        )
    checked: dict[str, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for name, emotions in groups:
        if not isinstance(name, str) or not name.strip():
            raise TaskError(f"classes: the name {name!r}, expected some text.")
        if any(unicodedata.category(each) in ("Cc", "Cs") for each in name):
            raise TaskError(f"classes: the name {name!r}, expected no control characters.")
        if name in checked:
            raise TaskError(f"classes: {name!r} is given twice, expected different names.")
        if not emotions:
            raise TaskError(f"class {name!r}: no emotions, expected one or more.")
        checked[name] = () if emotions == (REST,) else tuple(_emotion(name, e) for e in emotions)
        for emotion in checked[name]:
            if emotion in owner:
                raise TaskError(
                    f"class {name!r}: {emotion} is already in class {owner[emotion]!r}, expected "
                    "each emotion once."
                )
            owner[emotion] = name
    for name, found in checked.items():
        if not found:
            checked[name] = tuple(each for each in EMOTIONS if each not in owner)
            owner |= dict.fromkeys(checked[name], name)
            if not checked[name]:
                raise TaskError(f"class {name!r}: no emotion is left for {REST!r}. Name some.")
    return tuple(checked.items())


def _emotion(name: str, word: object) -> str:
    """Return the emotion that a class's word means; TaskError where there is none."""
    found = emotion_of(word) if isinstance(word, str) else None
    if found is None or found == NONE:
        raise TaskError(
            f"class {name!r}: unknown emotion {word!r}, expected {', '.join(EMOTIONS)}, or "
            f"{REST!r} for all that no other class has{did_you_mean(str(word), EMOTIONS)}. "
            "Name one or more."
        )
    return EMOTIONS[found]


def rows_sha256(splits: Mapping[str, Split]) -> str:
    """Return a hex sha256 of which images are in which split, in order, under which class."""
    digest = hashlib.sha256()
    for name in ("train", "validation", "test"):
        part = splits[name]
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.digest.tobytes())
        digest.update("\0".join(part.y).encode())
    return digest.hexdigest()


def part_of(data: Data, size: int | None) -> Data:
    """Return the data with `size` of its training images; None means all.

    A smaller part is contained in every larger one, and the classes' shares are kept.
    ``split`` gains ``train_part``, the number.
    """
    if size is None:
        return data
    chosen = np.sort(nested_order(data.train.y, data.task.split_seed)[:size])
    held = {name: getattr(data.train, name) for name in data.train.__dataclass_fields__}
    parts: dict[str, Any] = {k: each[chosen] for k, each in held.items() if each is not None}
    train = replace(data.train, **parts)
    sizes = {name: int((train.y == name).sum()) for name in data.classes}
    split = data.split | {"train_part": size, "sizes": data.split["sizes"] | {"train": sizes}}
    return replace(data, train=train, split=split)


def _leaks(split: Split, **others: Split) -> list[str]:
    found = [""] * len(split)
    for name, other in others.items():
        images, groups = set(image_keys(other.digest)), set(other.group.tolist()) - {""}
        keys = zip(image_keys(split.digest), split.group.tolist(), strict=True)
        for row, (image, group) in enumerate(keys):
            if image in images or group in groups:
                found[row] = name
    return found


_PLACE = ("name", "path", "test_on")


def _place(store: "Store") -> dict[str, str]:
    return {"name": store.path.name, "path": str(store.path.absolute())}


def _opened(place: Mapping[str, Any]) -> "Store":
    from fer_features.embedding.store import Store

    return Store(place["path"])


def _checked_store(store: Any) -> "Store":
    if not hasattr(store, "embeddings"):
        raise TaskError(f"store: {store!r:.80}, expected a Store, such as Store('cache/fer.h5').")
    checked: Store = store
    return checked


def _origin(store: "Store", outputs: Sequence[str]) -> dict[str, Any]:
    """Return what is kept of a store, as ``Data.store`` has it."""
    return _place(store) | {
        "network": store.network,
        "features": "+".join(outputs),
        "dimension": sum(store.dimensions[name] for name in outputs),
        "outputs": list(store.outputs),
        "options": store.options(),
        "fingerprint": store.fingerprint,
        "backbone": store.backbone,
        "dataset": store.dataset,
        "provenance": store.provenance,
    }


def _same_rows(
    stores: Mapping[str, tuple[Mapping[str, Any], "Store"]], parts: Mapping[str, Split]
) -> dict[str, npt.NDArray[np.int64]]:
    """Return where each split's rows are in another store than the one they were chosen of."""
    opened: dict[str, Store] = {}
    for place, other in stores.values():
        if place["path"] not in opened:
            same = place["path"] == str(other.path.absolute())
            opened[place["path"]] = first = other if same else _opened(place)
            first.check_labels()
            other.check_labels()
            if not same:
                check_same_rows(first, other)
    found = {}
    for name, part in parts.items():
        place, other = stores[name]
        first = opened[place["path"]]
        if not np.array_equal(first.digest[places(first, part.source)], part.digest):
            raise TaskError(
                f"{first.path}: holds other images now, expected those that were chosen of it. "
                "Select the task's rows again."
            )
        found[name] = places(other, part.source)
    return found


def _check_choice(field: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise TaskError(
            f"{field}: {value!r}, expected {' or '.join(choices)}"
            f"{did_you_mean(str(value), choices)}. Name one."
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
