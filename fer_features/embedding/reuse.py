"""What stores that are there know of a source's images, and how it gets into a new one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_features.embedding.layout import Positions, slab_of
from fer_features.embedding.partial import Content, PartialStore, summed_up
from fer_features.embedding.store import Store


@dataclass(frozen=True, eq=False)
class Known:
    """Of each image of a source, which store knows most of it.

    ``outputs`` are those of the new store, of which the first ones can be known: ``leading`` says
    how many, int64 (m,). ``giver`` is the number of the store that knows them, -1 for none, and
    ``place`` the image's position in it.
    """

    outputs: tuple[str, ...]
    stores: Sequence[Store]
    leading: npt.NDArray[np.int64]
    giver: npt.NDArray[np.int64]
    place: Positions

    @classmethod
    def of(cls, content: Content, outputs: tuple[str, ...], stores: Sequence[Store]) -> "Known":
        m = len(content.digest)
        leading, giver, place = np.zeros(m, np.int64), np.full(m, -1), np.zeros(m, np.int64)
        for number, store in enumerate(stores):
            known = known_of(content, outputs, store)
            better = known > leading
            leading[better], giver[better] = known[better], number
            place[better] = _positions(store.image_digest, content.digest)[better]
        return cls(outputs, stores, leading, giver, place)

    @property
    def lengths(self) -> dict[str, int]:
        """The dimensions of outputs that some store has, by name."""
        return {name: d for store in self.stores for name, d in store.dimensions.items()}

    def passes(self) -> list[dict[str, Any]]:
        """Return the passes that embeddings come from, each once, the oldest first."""
        passes: list[dict[str, Any]] = []
        for number, store in reversed(list(enumerate(self.stores))):
            for each in store.provenance.get("passes", []) if (self.giver == number).any() else []:
                if is_open(each):  # stopped: what it did until then is in its file
                    done = int((store.known() == len(store.outputs)).sum())
                    each = {**each, "images": done - each.get("reused", 0), "stopped": True}
                    if each["images"] <= 0:
                        continue
                if each not in passes:
                    passes.append(each)
        return summed_up(sorted(passes, key=lambda each: each.get("created", "")))

    def fill(self, partial: PartialStore) -> None:
        """Write all that is known into a new file."""
        for number, store in enumerate(self.stores):
            for known in range(1, len(self.outputs) + 1):
                images = np.flatnonzero((self.giver == number) & (self.leading == known))
                slab = slab_of(sum(store.dimensions.get(name, 0) for name in self.outputs[:known]))
                for start in range(0, len(images), slab):
                    part = images[start : start + slab]
                    values = store.read_images(self.place[part], self.outputs[:known])
                    partial.write(part, values)


def known_of(content: Content, outputs: Sequence[str], store: Store) -> npt.NDArray[np.int64]:
    """Return how many of ``outputs`` a store knows of each image, int64 (m,): the first ones."""
    known = store.known()
    leading = np.zeros(len(known), dtype=np.int64)
    for number, name in enumerate(outputs):
        if name not in store.outputs:
            break
        leading += (leading == number) & (known > store.outputs.index(name))
    where = _positions(store.image_digest, content.digest)
    return np.where(where < 0, 0, leading[where])


def lost_with(store: Store, content: Content) -> tuple[int, int]:
    """Count the images of which a store knows something, and those of them not in a source."""
    there = store.known() > 0
    elsewhere = _positions(content.digest, store.image_digest) < 0
    return int(there.sum()), int((there & elsewhere).sum())


def is_open(entry: dict[str, Any]) -> bool:
    """Tell whether a pass of a store's provenance has not ended."""
    return entry.get("seconds") is None and not entry.get("stopped")


def _positions(digest: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> Positions:
    """Return where each of ``wanted`` stands in ``digest``, uint8 (m, 32); -1 where nowhere."""
    where = {each.tobytes(): position for position, each in enumerate(digest)}
    return np.array([where.get(each.tobytes(), -1) for each in wanted], dtype=np.int64)
