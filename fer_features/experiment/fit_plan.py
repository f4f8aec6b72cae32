"""Which fits a comparison consists of, listed and checked before the first one starts."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from fer_features.errors import OptionError
from fer_features.experiment.layers import Head
from fer_features.experiment.logistic import LogisticHead
from fer_features.experiment.run_folder import plain, safe_name, seed_parameter
from fer_features.experiment.task import Data

Grid = Mapping[str, Mapping[str, Sequence[Any]]]
"""For a head's name, its parameters and the values to try."""


@dataclass(frozen=True, eq=False)
class Fit:
    """One head with one setting and one seed, and where its result is kept.

    Parameters
    ----------
    label : str
        The head's name in the comparison.
    head : classifier
        Unfitted, with the setting and the seed.
    folder : Path, optional
        Its run folder.
    size : int, optional
        Training images it is fitted to, None for all of them.
    """

    label: str
    head: Any
    folder: Path | None
    size: int | None = None

    @property
    def seed(self) -> Any:
        """The seed of the training, None of a head that has none."""
        name = seed_parameter(self.head)
        return None if name is None else self.head.get_params()[name]

    @property
    def params(self) -> dict[str, Any]:
        """The head's parameters but for the seed: what is selected among."""
        seed = seed_parameter(self.head)
        return {name: each for name, each in self.head.get_params().items() if name != seed}

    @property
    def setting(self) -> str:
        """The parameters as text that equal settings share."""
        return as_text(self.params)


def plan(
    heads: Mapping[str, Any], grid: Grid, seeds: Iterable[int], folder: Path | None
) -> list[Fit]:
    """List the fits that are selected among: heads x settings x seeds.

    Raises
    ------
    OptionError
        When there are no heads or seeds, a grid names an unknown head or parameter, or no
        values, or a head refuses a value.
    """
    chosen = list(dict.fromkeys(seeds))
    if not chosen:
        raise OptionError("seeds: none, expected at least one.")
    if not heads:
        raise OptionError("heads: none, expected at least one.")
    for label, values in grid.items():
        if label not in heads:
            raise OptionError(f"grid: unknown head {_but(label, list(heads))}")
        _check_values(label, heads[label], values)
    fits: dict[tuple[str, str, Any], Fit] = {}
    for label, head in heads.items():
        for setting in ParameterGrid({k: list(v) for k, v in grid.get(label, {}).items()}):
            for seed in chosen if _draws(head) else chosen[:1]:
                one = clone(head).set_params(**setting)
                if (name := seed_parameter(one)) is not None:
                    one.set_params(**{name: seed})
                if isinstance(one, Head):
                    one.check_parameters()
                fit = _placed(Fit(label, one, None), folder)
                fits.setdefault((label, fit.setting, fit.seed), fit)
    return list(fits.values())


def at_size(fit: Fit, size: int, folder: Path | None) -> Fit:
    """Return the same fit to `size` training images."""
    return _placed(replace(fit, head=clone(fit.head), size=size), folder)


def checked_sizes(sizes: Iterable[int], data: Data) -> list[int]:
    """Return the sizes of a size curve in ascending order, each once.

    All training images are no part: every comparison fits to those.

    Raises
    ------
    OptionError
        When one leaves a class without training images, or asks for more than there are.
    """
    ordered = sorted(set(sizes))
    order = nested_order(data.train.y, data.task.split_seed)
    for size in ordered:
        if not 0 < size <= len(order):
            raise OptionError(f"sizes: {size}, expected 1 to {len(order):,} training images.")
        lacking = set(data.classes) - set(data.train.y[order[:size]])
        if lacking:
            raise OptionError(f"sizes: {size}, too few for an image of {min(lacking)}. Take more.")
    return [size for size in ordered if size < len(order)]


def part_of(data: Data, size: int | None) -> Data:
    """Return the data with `size` of its training images; None means all.

    A smaller part is contained in every larger one, and the classes' shares are kept.
    ``split`` gains ``train_part``, the number.
    """
    if size is None:
        return data
    chosen = np.sort(nested_order(data.train.y, data.task.split_seed)[:size])
    parts = {name: getattr(data.train, name)[chosen] for name in data.train.__dataclass_fields__}
    train = replace(data.train, **parts)
    sizes = {name: int((train.y == name).sum()) for name in data.classes}
    split = data.split | {"train_part": size, "sizes": data.split["sizes"] | {"train": sizes}}
    return replace(data, train=train, split=split)


def nested_order(y: npt.NDArray[np.str_], seed: int) -> npt.NDArray[np.int64]:
    """Return an order of rows, int64 (n,), whose every beginning has the classes' shares."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(y))
    for name in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == name))
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")


def as_text(value: Any) -> str:
    """Return a text that equal values share."""
    return json.dumps(plain(value), sort_keys=True)


def _draws(head: Any) -> bool:
    """Whether a seed changes a fit: a logistic head that is given validation rows draws nothing."""
    return seed_parameter(head) is not None and not isinstance(head, LogisticHead)


def _check_values(label: str, head: Any, values: Mapping[str, Sequence[Any]]) -> None:
    seed = seed_parameter(head)
    known = [name for name in head.get_params() if name != seed]
    for name, tried in values.items():
        if name == seed:
            raise OptionError(f"grid: {label}.{seed}, expected a parameter. Use seeds for that.")
        if name not in known:
            raise OptionError(f"grid: {label} has no parameter {_but(name, known)}")
        if isinstance(tried, str) or not len(tried):
            raise OptionError(f"grid: {label}.{name}: {tried!r}, expected a list of values.")


def _placed(fit: Fit, folder: Path | None) -> Fit:
    """Name a fit's folder: any label makes a safe name, and no two settings share one."""
    if folder is None:
        return fit
    stated = [fit.label, type(fit.head).__name__, fit.setting, fit.size]
    digest = hashlib.sha256(as_text(stated).encode()).hexdigest()[:8]
    return replace(fit, folder=folder / "fits" / f"{safe_name(fit.label)}-{digest}-{fit.seed or 0}")


def _but(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{name!r}, expected {' or '.join(known)}.{hint}"
