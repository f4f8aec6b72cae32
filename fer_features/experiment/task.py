"""A classification task on a store: which rows, which class, which split.

Everything here is a pure function of each row's emotion, usage and digest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fer_features.errors import TaskError
from fer_features.experiment.classes import (
    DEFAULT_CLASSES,
    Classes,
    checked_classes,
    did_you_mean,
)
from fer_features.experiment.drawing import (
    Rows,
    check_usages,
    count_copies,
    draw,
    image_keys,
    one_copy_each,
    split_at_random,
    split_by_usage,
)
from fer_features.faces.emotions import EMOTIONS, NONE

if TYPE_CHECKING:
    from fer_features.embedding.store import Store

PER_CLASS = 8500
"""Images drawn of each class by default, as in the original experiment."""

SPLITS = ("random", "usage")
DUPLICATES = ("drop", "keep")


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
        FER2013's ids, 0 to 6.
    digest : uint8 (n, 32)
        sha256 of each image's pixels.
    source : str (n,)
        Row number or relative file path of each image in its source.
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.str_]
    emotion: npt.NDArray[np.int8]
    digest: npt.NDArray[np.uint8]
    source: npt.NDArray[np.str_]

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
        by split and class), ``leaked`` (test images that also occur in training and in
        validation) and ``copies`` (``rows`` of the task's emotions in the store, their distinct
        ``images``, and how many of those are ``disagreeing``).
    store : dict
        Ready for JSON: where the embeddings come from (``name``, ``path``, ``features``,
        ``outputs``, ``options`` of ``fer-extract``, ``fingerprint``, ``backbone``, ``dataset``,
        ``provenance``).
    """

    task: "Task"
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    split: dict[str, Any]
    store: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Task:
    """Which emotions make up which class, and how the rows are drawn and split.

    Parameters
    ----------
    classes : mapping of str to str or sequence of str
        Class names and their emotions (:data:`fer_features.faces.dataset.EMOTIONS`); the first
        class is the positive one. Kept as a tuple of pairs, so that equal tasks compare equal
        and hash alike; ``dict(task.classes)`` gives the mapping back.
    per_class : int, "min", "all" or None
        Images drawn of each class: a number, as many as the smallest class has, or all. None
        means 8500 for the default classes with the random split, else "all".
    split : {"random", "usage"}
        "random" is 60 % training, 20 % validation and 20 % test, stratified by class. "usage" is
        FER2013's own: Training, PublicTest (validation), PrivateTest (test); without PublicTest a
        stratified 20 % of Training is validation.
    split_seed : int
        Seed of the draw, the shuffle and the split, 0 to 2**32 - 1.
    duplicates : {"drop", "keep"}
        "drop": an image whose copies, over all labelled rows, fall into more than one of {each
        class, outside the task} is left out, and of others one copy stays: the first, with
        ``split="usage"`` the first of test, then validation, then training. "keep": the original
        protocol, row for row.

    Raises
    ------
    TaskError
        If a field has a bad value.
    """

    classes: Mapping[str, str | Sequence[str]] | Classes = DEFAULT_CLASSES
    per_class: int | str | None = None
    split: str = "random"
    split_seed: int = 42
    duplicates: str = "drop"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", checked_classes(self.classes))
        _check_choice("split", self.split, SPLITS)
        _check_choice("duplicates", self.duplicates, DUPLICATES)
        seed, per_class = self.split_seed, self.per_class
        if not _is_int(seed) or not 0 <= seed < 2**32:
            raise TaskError(f"split_seed: {seed!r}, expected a whole number from 0 to 4294967295.")
        object.__setattr__(self, "split_seed", int(seed))
        if per_class is None or per_class in ("min", "all"):
            return
        if not _is_int(per_class) or int(per_class) < 1:
            raise TaskError(
                f"per_class: {per_class!r}, expected a whole number above 0, 'min' or 'all'."
            )
        object.__setattr__(self, "per_class", int(per_class))

    @classmethod
    def all_emotions(cls, **options: Any) -> "Task":
        """Return the task of telling the seven emotions apart, a class each."""
        return cls({emotion: (emotion,) for emotion in EMOTIONS}, **options)

    @property
    def emotions(self) -> dict[str, tuple[str, ...]]:
        """Class names and their emotions, in order."""
        return {name: tuple(emotions) for name, emotions in dict(self.classes).items()}

    @property
    def images_per_class(self) -> int | str:
        """``per_class`` with its default filled in: a number, "min" or "all"."""
        if self.per_class is not None:
            return self.per_class
        return PER_CLASS if (self.classes, self.split) == (DEFAULT_CLASSES, "random") else "all"

    def labels(self, emotion: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
        """Return each row's class as its position in ``classes``, -1 outside the task."""
        labels = np.full(len(emotion), NONE, dtype=np.int64)
        for label, emotions in enumerate(self.emotions.values()):
            labels[np.isin(emotion, [EMOTIONS.index(name) for name in emotions])] = label
        return labels

    def rows(
        self,
        emotion: npt.NDArray[np.int8],
        usage: npt.NDArray[np.int8],
        digest: npt.NDArray[np.uint8],
    ) -> Rows:
        """Draw and split the task's rows.

        Parameters
        ----------
        emotion, usage : int8 (n,)
            Ids as in a store; -1 is none.
        digest : uint8 (n, 32)
            sha256 of each row's pixels.

        Raises
        ------
        TaskError
            If the rows have no emotions, are too few, or lack the usages the split needs.
        """
        if not np.any(emotion != NONE):
            raise TaskError("no row has an emotion, expected a labelled source. Fit on another.")
        table = self._table(emotion, usage)
        by_usage = self.split == "usage"
        pool = table[table["label"] != NONE]
        if by_usage:
            check_usages(pool["usage"])
        if self.duplicates == "drop":
            pool = one_copy_each(table, digest, by_usage)
        names = list(self.emotions)
        drawn = draw(pool, names, self.images_per_class, self.split_seed)
        split = split_by_usage if by_usage else split_at_random
        return split(drawn, names, self.split_seed)

    def select(self, store: "Store", features: str | Sequence[str] = "final") -> Data:
        """Read the task's embeddings from ``store`` and split them.

        Parameters
        ----------
        store : Store
        features : str or sequence of str
            What a head is given of each image: ``final``, an inner layer that the store keeps, or
            several, joined in that order: ``"block10_add+block14_add"``.

        Raises
        ------
        TaskError
            As :meth:`rows` does, with the store's path in front.
        StoreError
            When the store lacks the features, or rows of it are damaged.
        """
        outputs = store.features(features)
        store.check_labels()
        try:
            rows = self.rows(store.emotion, store.usage, store.digest)
        except TaskError as error:
            raise TaskError(f"{store.path}: {error}") from None
        names = np.array(list(self.emotions))
        labels = self.labels(store.emotion)
        splits = {
            part: Split(
                X=store.embeddings(chosen, outputs),
                y=names[labels[chosen]],
                emotion=store.emotion[chosen],
                digest=store.digest[chosen],
                source=store.source[chosen],
            )
            for part, chosen in rows._asdict().items()
        }
        origin = {
            "name": store.path.name,
            "path": str(store.path.absolute()),
            "features": "+".join(outputs),
            "outputs": list(store.outputs),
            "options": store.options(),
            "fingerprint": store.fingerprint,
            "backbone": store.backbone,
            "dataset": store.dataset,
            "provenance": store.provenance,
        }
        copies = count_copies(self._table(store.emotion, store.usage), store.digest)
        split = self._describe(splits) | {"copies": copies}
        return Data(self, **splits, classes=tuple(self.emotions), split=split, store=origin)

    def _table(self, emotion: npt.NDArray[np.int8], usage: npt.NDArray[np.int8]) -> pd.DataFrame:
        return pd.DataFrame({"emotion": emotion, "usage": usage, "label": self.labels(emotion)})

    def _describe(self, splits: Mapping[str, Split]) -> dict[str, Any]:
        sizes = {
            part: {name: int((split.y == name).sum()) for name in self.emotions}
            for part, split in splits.items()
        }
        copies = {part: set(image_keys(split.digest)) for part, split in splits.items()}
        test = image_keys(splits["test"].digest)
        return {
            "protocol": self.split,
            "seed": self.split_seed,
            "duplicates": self.duplicates,
            "per_class": self.images_per_class,
            "sizes": sizes,
            "leaked": {
                "test_in_train": sum(key in copies["train"] for key in test),
                "test_in_validation": sum(key in copies["validation"] for key in test),
            },
        }


def _check_choice(field: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise TaskError(
            f"{field}: {value!r}, expected {' or '.join(choices)}.{did_you_mean(value, choices)}"
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
