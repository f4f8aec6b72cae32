"""Drawn faces as a dataset, and any dataset of FER2013's form as a CSV file."""

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_features.errors import SourceError
from fer_features.faces.dataset import SIDE, FaceDataset, form_name
from fer_features.faces.emotions import EMOTIONS, NONE, USAGES
from fer_features.sample.drawing import draw_face

EMOTION_SHARES = (0.14, 0.06, 0.14, 0.30, 0.14, 0.11, 0.11)
"""Share of each of FER2013's emotions, in their order: near its own, with more disgust."""

USAGE_SHARES = (0.8, 0.1, 0.1)
"""Share of each usage, in the order of USAGES."""

MOST_COPIES = 8


def draw_faces(n: int = 1050, seed: int = 0) -> FaceDataset:
    """Draw ``n`` cartoon faces with emotion and usage; the same seed gives the same bytes.

    Emotions and usages come in the shares above, at least one of each, in random order. As in
    FER2013, some faces are exact copies: one in 25, at most eight. The first copy contradicts its
    original (one is labelled happiness, the other fear), the others agree with theirs.

    Raises
    ------
    SourceError
        ``n`` is too small for a face of each emotion.
    """
    if n < len(EMOTION_SHARES):
        least = len(EMOTION_SHARES)
        raise SourceError(f"{n} faces: expected at least {least}, one for each emotion.")
    rng = np.random.default_rng(seed)
    emotion = rng.permutation(_shared_out(n, EMOTION_SHARES)).astype(np.int8)
    usage = rng.permutation(_shared_out(n, USAGE_SHARES)).astype(np.int8)
    pixels = np.stack([draw_face(EMOTIONS[label], rng) for label in emotion])
    _copy_some(pixels, emotion, rng)
    return FaceDataset(
        name="sample",
        kind="arrays",
        pixels=pixels,
        emotion=emotion,
        usage=usage,
        source=np.arange(1, n + 1).astype(np.str_),
    )


def write_csv(faces: FaceDataset, path: str | os.PathLike[str]) -> None:
    """Write faces as ``emotion,pixels,Usage`` rows, as fer2013.csv has them; all or nothing.

    An emotion or Usage column that would be empty is left out, as in Kaggle's ``test.csv``.

    Raises
    ------
    SourceError
        The file cannot be written, only some rows have an emotion or a usage, or the faces are
        not 48x48 and grey.
    """
    content = csv_bytes(faces)
    target = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}-", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(content)
        # What tempfile makes is private; give it the mode that a file written plainly has.
        os.umask(mask := os.umask(0))
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise SourceError(
            f"{target}: cannot be written ({error.strerror}). Choose another file."
        ) from error


def _shared_out(n: int, shares: tuple[float, ...]) -> npt.NDArray[np.int64]:
    """Return ``n`` ids in the given shares, at least one of each; the largest takes the rest."""
    counts = np.array([max(1, round(n * share)) for share in shares])
    counts[np.argmax(shares)] += n - counts.sum()
    return np.repeat(np.arange(len(shares)), counts)


def _copy_some(
    pixels: npt.NDArray[np.uint8], emotion: npt.NDArray[np.int8], rng: np.random.Generator
) -> None:
    """Overwrite some faces by copies of others, no face taking part twice; labels stay."""
    rows = [list(rng.permutation(np.flatnonzero(emotion == i))) for i in range(len(EMOTION_SHARES))]
    happiness, fear = EMOTIONS.index("happiness"), EMOTIONS.index("fear")
    for copy in range(min(MOST_COPIES, len(pixels) // 25)):
        first, second = (happiness, fear) if copy == 0 else [copy % len(EMOTION_SHARES)] * 2
        if rows[first] and len(rows[second]) >= 2:
            pixels[rows[second].pop()] = pixels[rows[first].pop()]


def csv_bytes(faces: FaceDataset) -> bytes:
    """Return what :func:`write_csv` writes."""
    if faces.image != (SIDE, SIDE, 1):
        raise SourceError(
            f"{faces.name}: {form_name(faces.image)} images, expected {SIDE}x{SIDE} grey ones, "
            "which is all that such a file holds. Read the faces in that form."
        )
    values = [str(value) for value in range(256)]
    columns = {"pixels": [" ".join(values[v] for v in face.ravel()) for face in faces.pixels]}
    # Contempt has no number among FER2013's: where there is some, emotions are words.
    emotions = EMOTIONS if faces.emotion.max(initial=NONE) >= len(EMOTION_SHARES) else values
    for name, ids, names in (
        ("emotion", faces.emotion, emotions),
        ("Usage", faces.usage, USAGES),
    ):
        if (ids == NONE).all():
            continue
        if (ids == NONE).any():
            raise SourceError(
                f"{faces.name}: {(ids == NONE).sum()} of {len(faces)} rows have no {name}, "
                "expected all or none. Write the two kinds to two files."
            )
        columns[name] = [names[i] for i in ids]
    header = [name for name in ("emotion", "pixels", "Usage") if name in columns]
    rows = zip(*(columns[name] for name in header), strict=True)
    return "".join(f"{','.join(row)}\n" for row in [header, *rows]).encode()
