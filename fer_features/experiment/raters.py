"""What people said of the same images: one rater's score, beside the heads.

Votes come from a crowd, some ten an image (FER+: Barsoum et al., ICMI 2016), without saying who
voted. So one rater is any one vote, and what it is scored against is what the image's *other*
raters said: the emotion's class that most of them chose. A vote that counted towards its own
reference would flatter the raters, whose votes made it. This is how "human performance" is taken
where several people answered each question: SNLI (Bowman et al., EMNLP 2015), SQuAD (Rajpurkar et
al., EMNLP 2016).

Heads are scored against the same references: each vote is one line, with what the rater said, what
the head says of that image, and what the others said. So both are means over the same lines, and
:func:`~fer_features.experiment.statistics.difference` compares them, an image's lines as one draw.

Votes for emotions outside the task, for "unknown" and for "no face" are left out, as a head has no
such answer, and their share is stated. So is that of the votes without a reference: the others of
that image are a tie, or there are none. ``docs/statistics.md`` shows what other choices give.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from fer_features.faces.emotions import EMOTIONS

OTHER = "other"

VOTE_COLUMNS = tuple(f"votes_{name}" for name in (*EMOTIONS, OTHER))
"""The columns of votes in predictions.csv: each emotion's, then "unknown" and "no face"."""

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Raters:
    """The votes on some images that can be scored, a line each, and what became of the others.

    Parameters
    ----------
    in_task : int64 (n, k)
        Votes for each class of the task, in its order; the n images are those scored.
    row : int64 (m,)
        The image of each line, its position among the n.
    said : int64 (m,)
        The class that this rater said.
    target : int64 (m,)
        The class that most of the image's other raters said.
    votes : int
        All votes on the n images.
    """

    in_task: Int
    row: Int
    said: Int
    target: Int
    votes: int

    @property
    def images(self) -> int:
        """How many of the images have a line."""
        return len(np.unique(self.row))

    @property
    def share_outside(self) -> float:
        """The share of all votes that are for no class of the task; 0 to 1, NaN without votes."""
        return 1 - int(self.in_task.sum()) / self.votes if self.votes else np.nan

    @property
    def share_tied(self) -> float:
        """The share of the votes within the task without a reference; 0 to 1."""
        within = int(self.in_task.sum())
        return 1 - len(self.row) / within if within else np.nan

    @property
    def p(self) -> Float:
        """What the raters said as probabilities, float64 (1, m, k): 1 for the class said."""
        return np.eye(self.in_task.shape[1])[None, self.said]

    @property
    def agreement(self) -> Float:
        """The share of each image's votes within the task that its class of most votes has.

        float64 (n,), from 1/k to 1; NaN where an image has no such vote.
        """
        within = self.in_task.sum(axis=1)
        share = self.in_task.max(axis=1) / np.maximum(within, 1)
        return np.where(within > 0, share, np.nan)


def raters_of(rows: pd.DataFrame, classes: dict[str, Sequence[str]]) -> Raters | None:
    """Return what raters said of predictions, or None where these have no votes.

    Parameters
    ----------
    rows : DataFrame
        Predictions on some images, as ``Result.predictions`` has them.
    classes : dict
        The emotions of each class, in the task's order: ``Result.task["classes"]``.
    """
    if VOTE_COLUMNS[0] not in rows:
        return None
    votes = rows[list(VOTE_COLUMNS)].to_numpy(dtype=np.int64)
    return scored_votes(votes, list(classes.values())) if votes.any() else None


def scored_votes(votes: Int, classes: Sequence[Sequence[str]]) -> Raters:
    """Return the votes that can be scored, each against the others of its image.

    Parameters
    ----------
    votes : int64 (n, 9)
        For each image the votes for each of ``EMOTIONS``, and at last those for none of them.
    classes : sequence of k sequences of str
        The emotions of each class of the task.
    """
    held = [[EMOTIONS.index(emotion) for emotion in emotions] for emotions in classes]
    in_task = np.stack([votes[:, each].sum(axis=1) for each in held], axis=1)
    lines = []
    for said in range(len(held)):
        others = in_task.copy()
        others[:, said] -= 1
        target = others.argmax(axis=1)
        most = others.max(axis=1)
        alone = (others == most[:, None]).sum(axis=1) == 1
        rows = np.flatnonzero((in_task[:, said] > 0) & (most > 0) & alone)
        row = np.repeat(rows, in_task[rows, said])
        lines.append((row, np.full(len(row), said), target[row]))
    row, said_all, target_all = (np.concatenate(each) for each in zip(*lines, strict=True))
    order = np.argsort(row, kind="stable")
    return Raters(in_task, row[order], said_all[order], target_all[order], int(votes.sum()))
