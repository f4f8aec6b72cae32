"""Random folders and CSV files, read and compared with a reader that is too simple to be wrong.

The oracle knows the few words that the strategies below write, and looks at one path or one row at
a time. Whatever is refused is no matter here, but for its one line; whatever is read must say what
its folder or cell says.
"""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from PIL import Image

from fer_features.errors import FerFeaturesError
from fer_features.faces.dataset import FaceDataset
from fer_features.faces.emotions import EMOTIONS, NONE, USAGES
from fer_features.faces.reading import read_faces

HOME = tempfile.TemporaryDirectory()
set_hypothesis_home_dir(HOME.name)  # not the folder that tests are started in


def examples(count: int) -> settings:
    """Return how often to try: the same examples each time, and no folder of them left behind."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


EMOTION = {
    "angry": 0, "Anger": 0, "0_angry": 0, "disgust": 1, "fear": 2, "Happy": 3, "joy": 3, "sad": 4,
    "SADNESS": 4, "surprised": 5, "neutral": 6, "contempt": 7,
}  # fmt: skip
USAGE = {
    "train": 0, "Training": 0, "train_set": 0, "val": 1, "validation": 1, "PublicTest": 1, "dev": 1,
    "test": 2, "TEST": 2, "private_test": 2, "eval": 2,
}  # fmt: skip
OTHER = ["archive", "images", "S01", "S02", "p7", "anna", "Angst", "not_neutral", "hapy", "7", "3"]
SYSTEM = ["Thumbs.db", ".DS_Store", "desktop.ini", "._a.png", "__MACOSX/a.png", ".git/a.png"]
IMAGES = {"png": "PNG", "jpg": "JPEG", "jfif": "JPEG", "bmp": "BMP", "webp": "WEBP", "": "PNG"}
REMEDIES = (
    "map=", "labels_as=", "skip_bad=True", "group_by=", "Check", "Mend", "Pass", "Put", "Rename",
    "Remove", "Get", "Name", "Change", "Give",
)  # fmt: skip


@contextmanager
def folder() -> Iterator[Path]:
    """Give an empty folder; hypothesis has many examples for each ``tmp_path``."""
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)


def read_or_refuse(source: Path, **options: Any) -> FaceDataset | None:
    """Return what is read, or check that the error is one line that ends with a remedy."""
    try:
        return read_faces(source, **options)
    except FerFeaturesError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        assert message.endswith(".")
        assert any(remedy in message for remedy in REMEDIES), message
        return None


# Folders


class File(NamedTuple):
    """A file to write: ``kind`` is an image's, or why it is none."""

    path: str
    kind: str


folders = st.lists(
    st.one_of(st.sampled_from(list(EMOTION)), st.sampled_from(list(USAGE)), st.sampled_from(OTHER)),
    max_size=4,
)
sorted_out = st.tuples(  # a layout in order: a wrapper, a usage, an emotion, folders below
    st.sampled_from([[], ["archive"], ["images"]]),
    st.lists(st.sampled_from(list(USAGE)), max_size=1),
    st.lists(st.sampled_from(list(EMOTION)), min_size=1, max_size=1),
    st.lists(st.sampled_from(["x", "S01"]), max_size=1),
).map(lambda parts: [part for each in parts for part in each])
stems = st.sampled_from(
    ["a", "b", "angry_1", "Training_1", "PublicTest_2", "PrivateTest_3", "7", "Zoë"]
)


@st.composite
def image_files(draw: st.DrawFn, places: st.SearchStrategy[list[str]]) -> File:
    suffix = draw(st.sampled_from(sorted(IMAGES)))
    name = draw(stems) + f".{suffix}" * bool(suffix)
    return File("/".join([*draw(places), name]), IMAGES[suffix])


def others(places: st.SearchStrategy[list[str]]) -> st.SearchStrategy[File]:
    name = st.one_of(
        st.sampled_from(SYSTEM).map(lambda name: (name, "system")),
        st.sampled_from(["x.txt", "README", "labels.csv"]).map(lambda name: (name, "text")),
        st.sampled_from(["x.heic", "x.svg"]).map(lambda name: (name, "unreadable")),
        st.sampled_from([".hidden.png", ".h/happy.png"]).map(lambda name: (name, "hidden")),
        st.sampled_from(["bad.png", "bad.jpg"]).map(lambda name: (name, "damaged")),
    )
    return st.tuples(places, name).map(
        lambda both: File("/".join([*both[0], both[1][0]]), both[1][1])
    )


def trees(places: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[File]]:
    files = st.one_of(image_files(places), image_files(places), image_files(places), others(places))
    return st.lists(files, min_size=1, max_size=9, unique_by=lambda file: file.path)


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), 9).save(file, kind)
    return file.getvalue()


CONTENT = {kind: encoded(kind) for kind in IMAGES.values()}


def write(root: Path, files: list[File]) -> list[File]:
    """Write files and return those that could be: no name may be a file's and a folder's."""
    written = []
    for file in files:
        path = root / file.path
        if path.exists() or any(above.is_file() for above in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT.get(file.kind, b"" if file.kind == "damaged" else b"words"))
        written.append(file)
    return written


def says(path: str, known: dict[str, int]) -> set[int]:
    """Return what the folders of a path say."""
    return {known[part] for part in path.split("/")[:-1] if part in known}


def counted(files: list[File]) -> int:
    """Return how many files there are besides the system's; a hidden folder is one."""
    ours = [file for file in files if file.kind != "system"]
    hidden = {file.path.split("/.")[0] + "/." + file.path.split("/.")[-1].split("/")[0]
              for file in ours if file.kind == "hidden" and "/.h/" in f"/{file.path}"}  # fmt: skip
    singly = [file for file in ours if not (file.kind == "hidden" and "/.h/" in f"/{file.path}")]
    return len(singly) + len(hidden)


def check_folder(faces: FaceDataset, files: list[File]) -> None:
    images = {file.path for file in files if file.kind in CONTENT}
    read = faces.source.tolist()
    assert set(read) <= images
    assert read == sorted(read)
    for path, emotion, usage in zip(
        read, faces.emotion.tolist(), faces.usage.tolist(), strict=True
    ):
        said = says(path, EMOTION)
        assert said == ({emotion} if emotion != NONE else set()), path
        usages = says(path, USAGE)
        name = path.rpartition("/")[2].partition("_")[0]
        in_name = USAGES.index(name) if name in USAGES else NONE
        assert usage == (usages.pop() if usages else in_name), path
        assert not usages, path
    if (faces.emotion != NONE).any():
        assert (faces.emotion != NONE).all()
    assert len(read) + sum(faces.left_out.values()) == counted(files)
    damaged = sum(file.kind == "damaged" for file in files)
    assert damaged <= faces.skipped <= len(images) + damaged - len(read)


@examples(250)
@given(trees(folders), st.booleans())
def test_no_image_of_a_random_tree_has_another_label_than_its_folders_say(files, skip_bad):
    with folder() as root:
        files = write(root, files)
        faces = read_or_refuse(root, skip_bad=skip_bad)
        event("refused" if faces is None else "unlabelled" if -1 in faces.emotion else "labelled")
        if faces is not None:
            assert skip_bad or not faces.skipped
            check_folder(faces, files)


@examples(150)
@given(trees(sorted_out))
def test_trees_in_order_are_read_but_for_what_is_damaged(files):
    with folder() as root:
        files = write(root, files)
        faces = read_or_refuse(root, skip_bad=True, group_by="^(.?)")
        images = [file for file in files if file.kind in CONTENT]
        event("no images" if not images else "images")
        assert (faces is not None) == bool(images)
        if faces is not None:
            check_folder(faces, files)
            assert sorted(faces.source) == sorted(file.path for file in images)
            assert (faces.emotion != NONE).all()


@examples(60)
@given(trees(sorted_out), st.dictionaries(st.sampled_from(OTHER), st.sampled_from(EMOTIONS)))
def test_words_of_a_map_that_are_not_there_change_nothing(files, mapped):
    with folder() as root:
        files = write(root, files)
        options = {"skip_bad": True, "group_by": "^(.?)"}
        plain = read_or_refuse(root, **options)
        absent = {
            word: name for word, name in mapped.items() if word not in ("images", "archive", "S01")
        }
        also = read_or_refuse(root, map=absent, **options)
        assert (plain is None) == (also is None)
        if plain is not None and also is not None:
            assert also.content_sha256 == plain.content_sha256


# CSV files

FACES = np.random.default_rng(4).integers(0, 256, (6, 2304), dtype=np.uint8)
FACES[:, 0] = 100
VALUES = [list(map(str, face.tolist())) for face in FACES]
LISTS = {
    "spaces": [" ".join(values) for values in VALUES],
    "quoted": ['"' + ", ".join(values) + '"' for values in VALUES],
    "brackets": ["[" + " ".join(values) + "]" for values in VALUES],
    "fractions": [".0 ".join(values) + ".0" for values in VALUES],
}
CELLS = {
    **EMOTION,
    "3": 3,
    "0.0": 0,
    " 6 ": 6,
    "5.": 5,
}
UNKNOWN = ["hapy", "Angst", "", "12", "-1", "2.5", "not_neutral"]
SEVEN = "7"  # an emotion of others
DAMAGE = {
    "short": lambda cell: cell[: len(cell) // 2].rstrip(" ,.") + '"' * cell.startswith('"'),
    "none": lambda cell: '""',
    "dots": lambda cell: "1 2 ... 3 4",
    "word": lambda cell: "pixels",
    "beyond": lambda cell: cell.replace("100", "256", 1),
}


class Row(NamedTuple):
    """A row to write: a face's number, its cells of emotion and Usage, and what is done to it."""

    face: int
    emotion: str
    usage: str
    damage: str | None


mostly_known = [*[st.sampled_from(list(CELLS))] * 6, st.sampled_from([*UNKNOWN, SEVEN])]
mostly_usages = [*[st.sampled_from(list(USAGE))] * 6, st.sampled_from(["", "holdout", "Trainnig"])]
rows = st.builds(
    Row,
    st.integers(0, len(FACES) - 1),
    st.one_of(*mostly_known),
    st.one_of(*mostly_usages),
    st.one_of(*[st.none()] * 5, st.sampled_from(list(DAMAGE))),
)
good_rows = st.builds(
    Row,
    st.integers(0, len(FACES) - 1),
    st.sampled_from(list(CELLS)),
    st.sampled_from(list(USAGE)),
    st.none(),
)
columns = st.permutations(["emotion", "pixels", "Usage", "id"]).flatmap(
    lambda names: st.sets(st.sampled_from(["emotion", "Usage", "id"])).map(
        lambda left: [name for name in names if name not in left]
    )
)


def table(table_rows: list[Row], names: list[str], joint: str, pixels: str, end: str) -> str:
    lines = [joint.join(names)]
    for number, row in enumerate(table_rows):
        cell = LISTS[pixels][row.face]
        said = {
            "emotion": row.emotion,
            "pixels": DAMAGE[row.damage](cell) if row.damage else cell,
            "Usage": row.usage,
            "id": str(number),
        }
        lines.append(joint.join(said[name] for name in names))
    return end.join(lines) + end


def is_good(row: Row, names: list[str], order: dict[str, int]) -> bool:
    return (
        row.damage is None
        and ("emotion" not in names or row.emotion in order)
        and ("Usage" not in names or row.usage in USAGE)
    )


@examples(250)
@given(
    st.lists(rows, min_size=1, max_size=8),
    columns,
    st.sampled_from(",;\t|"),
    st.sampled_from(sorted(LISTS)),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from([None, "fer2013"]),
)
def test_no_row_of_a_random_table_has_another_label_than_its_cell_says(
    table_rows, names, joint, pixels, end, skip_bad, labels_as
):
    with folder() as root:
        (root / "faces.csv").write_bytes(table(table_rows, names, joint, pixels, end).encode())
        faces = read_or_refuse(root / "faces.csv", skip_bad=skip_bad, labels_as=labels_as)
    good = [i for i, row in enumerate(table_rows) if is_good(row, names, CELLS)]
    # What is wrong with a row's pixels does not make its emotion another's.
    numbered = "emotion" in names and any(row.emotion == SEVEN for row in table_rows)
    if faces is None:
        event("refused")
        assert len(good) < len(table_rows)
        assert not (skip_bad and good and (labels_as or not numbered))
        return
    event("read")
    assert skip_bad or len(good) == len(table_rows)
    assert not numbered or labels_as
    assert faces.source.tolist() == [str(i + 1) for i in good]
    kept = [table_rows[i] for i in good]
    np.testing.assert_array_equal(faces.pixels.reshape(-1, 2304), FACES[[row.face for row in kept]])
    emotion = [CELLS[row.emotion] if "emotion" in names else NONE for row in kept]
    assert faces.emotion.tolist() == emotion
    usage = [USAGE[row.usage] if "Usage" in names else NONE for row in kept]
    assert faces.usage.tolist() == usage
    assert len(faces) + sum(faces.left_out.values()) == len(table_rows)
    assert faces.skipped == sum(faces.left_out.values())


@examples(120)
@given(
    st.lists(good_rows, min_size=1, max_size=6),
    st.one_of(
        st.permutations(["emotion", "pixels"]),
        st.permutations(["emotion", "pixels", "Usage"]),
        st.permutations(["pixels", "Usage"]),
        st.just(["pixels"]),
        columns,
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from(sorted(LISTS)),
    st.sampled_from(["", "\ufeff"]),
)
def test_a_table_without_a_header_is_read_as_with_one_or_refused(
    table_rows, names, joint, pixels, mark
):
    text = table(table_rows, names, joint, pixels, "\n")
    with folder() as root:
        (root / "a.csv").write_bytes(text.encode())
        (root / "b.csv").write_bytes((mark + text.partition("\n")[2]).encode())
        named = read_or_refuse(root / "a.csv")
        bare = read_or_refuse(root / "b.csv")
    assert named is not None
    event("refused" if bare is None else "read")
    if "id" not in names:
        assert bare is not None
    if bare is not None:
        np.testing.assert_array_equal(bare.pixels, named.pixels)
        assert bare.usage.tolist() == named.usage.tolist()
        if "emotion" in names or "id" not in names:
            assert bare.emotion.tolist() == named.emotion.tolist()


@examples(60)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=6),
    st.integers(0, 1),
    st.sampled_from(",;\t|"),
    st.integers(0, 9999),
)
def test_wide_columns_in_any_order_are_the_same_faces(numbers, first, joint, seed):
    names = [f"pixel{i + first}" for i in range(2304)] + ["emotion", "id"]
    order = np.random.default_rng(seed).permutation(len(names))
    cells = [names] + [
        [*VALUES[row % len(VALUES)], str(number % 7), str(row)]
        for row, number in enumerate(numbers)
    ]
    with folder() as root:
        lines = [joint.join(line[i] for i in order) for line in cells]
        (root / "faces.csv").write_text("\n".join(lines))
        faces = read_faces(root / "faces.csv")
    expected = FACES[[row % len(VALUES) for row in range(len(numbers))]]
    np.testing.assert_array_equal(faces.pixels.reshape(-1, 2304), expected)
    assert faces.emotion.tolist() == [number % 7 for number in numbers]
