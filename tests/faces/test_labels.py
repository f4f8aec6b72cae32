"""Files of labels: what is read of each form, what it joins, and what is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fer_features.errors import OptionError, SourceError
from fer_features.faces.emotions import EMOTIONS
from fer_features.faces.labels import read_labels

CSV = {"kind": "csv", "limit": None, "skipped": 0}
FOLDER = {"kind": "folder", "limit": None, "skipped": 0}
VOTES = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
USAGES = ("Training", "PublicTest", "PrivateTest")


def written(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def votes(folder: Path, *rows: str, usage: str = "Training") -> Path:
    """Write FER+'s table with these votes, one line a row."""
    lines = [f"{usage},fer{i:07d}.png,{row}" for i, row in enumerate(rows)]
    return written(folder, "\n".join([VOTES, *lines]) + "\n", "fer2013new.csv")


def digests(n: int) -> np.ndarray:
    hashes = [hashlib.sha256(str(i).encode()).digest() for i in range(n)]
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(n, 32)


def joined(path: Path, sources: list[str], dataset: dict = FOLDER, usage: int = 0, **options):
    n = len(sources)
    labels = read_labels(path, **options)
    return labels.join(np.array(sources), digests(n), np.full(n, usage, np.int8), dataset)


def named(emotion: np.ndarray) -> list[str]:
    return ["none" if each < 0 else EMOTIONS[each] for each in emotion]


WINNERS = [
    ("9,0,0,1,0,0,0,0,0,0", "neutral"),
    ("0,10,0,0,0,0,0,0,0,0", "happiness"),
    ("0,0,6,0,0,0,4,0,0,0", "surprise"),
    ("3,0,0,4,1,1,1,0,0,0", "sadness"),
    ("0,0,0,0,5,4,0,0,1,0", "anger"),
    ("0,0,0,0,4,5,0,0,1,0", "disgust"),
    ("0,0,1,1,1,1,6,0,0,0", "fear"),
    ("2,0,0,0,0,0,0,7,1,0", "contempt"),
    ("4,0,0,4,1,0,0,0,1,0", "none"),  # a tie
    ("2,0,0,2,0,0,0,0,6,0", "none"),  # unknown
    ("0,0,0,0,0,0,0,0,0,10", "none"),  # no face
    ("3,0,0,0,0,0,0,0,3,4", "none"),
    ("4,0,0,0,0,0,0,0,4,2", "none"),  # a tie with unknown
    ("0,0,0,0,0,0,0,0,0,0", "none"),
]


def test_votes_give_the_emotion_most_voted_for(tmp_path: Path) -> None:
    path = votes(tmp_path, *(row for row, _ in WINNERS))
    numbers = [str(i) for i in range(1, len(WINNERS) + 1)]
    by_row = joined(path, numbers, CSV)
    assert by_row.emotion.dtype == np.int8
    assert named(by_row.emotion) == [emotion for _, emotion in WINNERS]
    assert (by_row.matched, by_row.unmatched) == (len(WINNERS), 0)
    by_name = joined(path, [f"x/y/fer{i:07d}.png" for i in range(len(WINNERS))])
    assert named(by_name.emotion) == named(by_row.emotion)
    labels = read_labels(path)
    assert (labels.kind, labels.name) == ("ferplus", "fer2013new.csv")
    assert labels.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (0.0, ["neutral", "sadness", "sadness"]),
        (0.7, ["neutral", "none", "none"]),  # 7 of 10 reach 0.7
        (0.71, ["none", "none", "none"]),
        (0.4, ["neutral", "sadness", "none"]),
        (1, ["none", "none", "none"]),
    ],
)
def test_the_winners_share_is_of_all_votes_unknown_and_no_face_among_them(
    least: float, expected: list[str], tmp_path: Path
) -> None:
    path = votes(tmp_path, "7,0,0,1,1,1,0,0,0,0", "2,0,0,4,1,0,0,0,2,1", "2,0,0,3,0,0,0,0,2,2")
    found = joined(path, ["1", "2", "3"], CSV, min_agreement=least)
    assert named(found.emotion) == expected


def test_a_winner_can_be_read_as_another_emotion(tmp_path: Path) -> None:
    path = votes(tmp_path, "0,0,0,0,0,0,0,9,1,0", "0,0,0,0,0,0,0,0,9,1")
    assert named(joined(path, ["1", "2"], CSV, map={"contempt": "disgust"}).emotion) == [
        "disgust",
        "none",
    ]
    assert named(joined(path, ["1", "2"], CSV, map={"contempt": "none"}).emotion)[0] == "none"


def test_a_limited_source_joins_by_its_row_numbers(tmp_path: Path) -> None:
    path = votes(tmp_path, *(row for row, _ in WINNERS))
    found = joined(path, ["2", "5", "8"], CSV | {"limit": 3})
    assert named(found.emotion) == ["happiness", "anger", "contempt"]
    assert (found.matched, found.unmatched) == (3, len(WINNERS) - 3)
    skipped = joined(path, ["2", "3"], CSV | {"skipped": 12})
    assert named(skipped.emotion) == ["happiness", "surprise"]


@pytest.mark.parametrize(
    ("sources", "dataset", "usage", "message"),
    [
        (["1", "2"], CSV, 0, r"3 rows of votes, the source has 2 rows; votes join by row number"),
        (["1", "2", "3", "4"], CSV, 0, "3 rows of votes, the source has 4 rows"),
        (["2", "4"], CSV | {"limit": 2}, 0, "3 rows of votes, the source has a row 4"),
        (["1", "2", "3"], CSV, 2, "row 1: Usage Training, the source has PrivateTest there, and"),
        (["1", "2", "3"], CSV, -1, "the source has none there, and another in 3 of 3 rows"),
    ],
)
def test_votes_of_other_rows_are_refused(sources, dataset, usage, message, tmp_path) -> None:
    path = votes(tmp_path, *["9,0,0,1,0,0,0,0,0,0"] * 3)
    with pytest.raises(SourceError, match=message) as caught:
        joined(path, sources, dataset, usage)
    assert str(caught.value).startswith(str(path))
    assert "Extract fer2013.csv" in str(caught.value)


def test_one_usage_that_differs_is_enough_to_refuse_votes(tmp_path: Path) -> None:
    path = votes(tmp_path, *["9,0,0,1,0,0,0,0,0,0"] * 40)
    usage = np.zeros(40, np.int8)
    usage[31] = 1
    labels = read_labels(path)
    with pytest.raises(SourceError, match="row 32: Usage Training, the source has PublicTest"):
        labels.join(np.arange(1, 41).astype(str), digests(40), usage, CSV)


def test_ferplus_own_label_csv_joins_by_file_name(tmp_path: Path) -> None:
    text = (
        'fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0\n'
        'fer0000001.png,"(0, 0, 48, 48)",0,0,0,0,0,0,0,8,2,0\n'
        'fer0000002.png,"(0, 0, 48, 48)",0,0,0,0,0,0,0,0,1,9\n'
    )
    path = written(tmp_path, text, "label.csv")
    found = joined(path, ["FER2013Train/fer0000001.png", "FER2013Train/fer0000000.png", "b.png"])
    assert named(found.emotion) == ["contempt", "neutral", "none"]
    assert (found.matched, found.unmatched) == (2, 1)
    assert read_labels(path).kind == "ferplus"
    assert named(joined(path, ["fer0000000.png"], min_agreement=0.5).emotion) == ["none"]


A, B = "angry/a 1.png", "b.png"
DIGEST = [each.tobytes().hex() for each in digests(2)]

TABLES = {
    "source": f"source,emotion\n{A},anger\n{B},sad\n",
    "any case and space": f" Source , EMOTION \n {A} , ANGRY\n{B},Sadness\n",
    "semicolon": f"source;emotion\n{A};anger\n{B};sad\n",
    "tab": f"source\temotion\n{A}\tanger\n{B}\tsad\n",
    "byte order mark and CRLF": f"\ufeffsource,emotion\r\n{A},anger\r\n{B},sad\r\n",
    "blank lines": f"\nsource,emotion\n\n{A},anger\n\n{B},sad\n\n",
    "quotes": f'"source","emotion"\n"{A}","anger"\n"{B}","sad"\n',
    "other columns": f"n,emotion,x,source\n1,anger,,{A}\n2,sad,9,{B}\n",
    "numbers": f"source,emotion\n{A},0\n{B},4\n",
    "numbers as floats": f"source,emotion\n{A},0.0\n{B},4.0\n",
    "digest": f"digest,emotion\n{DIGEST[0]},anger\n{DIGEST[1].upper()},sad\n",
    "source and digest": f"source,digest,emotion\n{A},{DIGEST[0]},0\n{B},{DIGEST[1]},4\n",
    "file name": f"filename,label\na 1.png,anger\n{B},sad\n",
    "Image name": f"Image Name,Expression\na 1.png,anger\n{B},sad\n",
    "path": f"path,class\n/home/me/data/{A},anger\n./{B},sad\n",
    "backslashes": f"image,label\nC:\\faces\\angry\\a 1.png,anger\n{B},sad\n",
    "a folder by another name": f"image_path,emotion_label\nraw/Anger/a 1.png,anger\n{B},sad\n",
    "no header": f"{A},anger\n{B},sad\n",
    "no header, semicolon": f"{A};0\n{B};4\n",
    "spaces, also in a name": f"{A} anger\n{B} sad\n",
    "spaces with a header": f"file emotion\n{A} anger\n{B} sad\n",
    "emotion before label": f"label,emotion,source\n9,anger,{A}\n9,sad,{B}\n",
    "twice the same": f"source,emotion\n{A},anger\n{A},anger\n{B},sad\n",
    "more than there are": f"source,emotion\n{A},anger\n{B},sad\nc.png,fear\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_a_table_is_read(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    found = joined(path, [A, B])
    assert named(found.emotion) == ["anger", "sadness"]
    assert read_labels(path).kind == "table"
    assert (found.matched, found.unmatched) == (2, int("c.png" in text))


def test_rows_without_a_label_have_none_and_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path, f"source,emotion\n{A},\nx.png,happy\n{B},sad\n")
    found = joined(path, [A, B, "c/d.png"])
    assert named(found.emotion) == ["none", "sadness", "none"]
    assert (found.matched, found.unmatched) == (2, 1)


def test_copies_of_an_image_share_the_label_of_its_digest(tmp_path: Path) -> None:
    path = written(tmp_path, f"digest,emotion\n{DIGEST[1]},contempt\n")
    digest = digests(2)[[1, 0, 1]]
    found = read_labels(path).join(np.array(["1", "2", "3"]), digest, np.zeros(3, np.int8), CSV)
    assert named(found.emotion) == ["contempt", "none", "contempt"]
    assert (found.matched, found.unmatched) == (2, 0)


def test_row_numbers_are_matched_as_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, "source,emotion\n3,happy\n1.0,sad\n")
    assert named(joined(path, ["1", "2", "3"], CSV).emotion) == ["sadness", "none", "happiness"]


def test_rafdbs_list_is_known_by_its_form_and_matches_aligned_images(tmp_path: Path) -> None:
    numbers = [5, 1, 7, 3, 2, 4, 6]
    lines = [f"train_{i:05d}.jpg {n}" for i, n in enumerate(numbers, 1)]
    path = written(tmp_path, "\n".join(lines) + "\n", "list_patition_label.txt")
    sources = [f"aligned/train_{i:05d}_aligned.jpg" for i in range(1, 8)]
    expected = ["sadness", "surprise", "neutral", "disgust", "fear", "happiness", "anger"]
    assert named(joined(path, sources).emotion) == expected
    assert named(joined(path, [f"train_{i:05d}.jpg" for i in range(1, 8)]).emotion) == expected
    kaggle = written(
        tmp_path, "image,label\ntrain_00001_aligned.jpg,5\ntrain_00002_aligned.jpg,1\n", "k.csv"
    )
    assert named(joined(kaggle, sources[:2]).emotion) == ["sadness", "surprise"]
    same = [line.replace("train_", "face") for line in lines]
    other = written(tmp_path, "\n".join(same) + "\n", "other.txt")
    sources = [f"face{i:05d}.jpg" for i in range(1, 8)]
    with pytest.raises(SourceError, match=r"numbers 1 to 7 .*as RAF-DB's 1 surprise.*rafdb"):
        joined(other, sources)
    assert named(joined(other, sources, labels_as="RAF-DB").emotion) == expected


def test_the_whole_path_goes_before_its_last_part(tmp_path: Path) -> None:
    """Names that occur in several folders are told apart by these, or not matched at all."""
    path = written(tmp_path, "file,emotion\ntrain/1.png,happy\ntest/1.png,sad\n")
    assert named(joined(path, ["train/1.png", "test/1.png"]).emotion) == ["happiness", "sadness"]
    assert named(joined(path, ["data/test/1.png"]).emotion) == ["sadness"]
    found = joined(path, ["test/1.png"])
    assert (named(found.emotion), found.unmatched) == (["sadness"], 1)
    with pytest.raises(SourceError, match="none of its 2 labels matches a row"):
        joined(path, ["val/1.png"])


REFUSED = {
    "web page": (
        "<!DOCTYPE html>\n<html>",
        "a web page, not the file itself, .*Download the file again",
    ),
    "LFS pointer": ("version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer.*lfs pull"),
    "empty": ("", "an empty file, expected .*Get the file again"),
    "blank": ("\ufeff \n \n", "an empty file"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0", "not text in UTF-8"),
    "UTF-16": ("source,emotion\n1,happy\n".encode("utf-16"), "not text in UTF-8"),
    "Latin-1": ("source,emotion\n1,fr\xf6hlich\n".encode("latin-1"), "not text in UTF-8"),
    "header alone": ("source,emotion\n", "a header and no labels"),
    "no emotion": ("source,mood\na.png,happy\n", "no column emotion in the header 'source, mood'"),
    "no key": ("emotion,pixels,Usage\n0,1 2 3,Training\n", "no column says which image"),
    "no header": ("a.png,happy,1\nb.png,sad,2\n", "3 columns and none called file or emotion"),
    "one column": ("happy\nsad\n", "1 column and none called"),
    "a line further down": (
        "\n\nsource,emotion\n\na.png,happy\na.png,sad\n",
        "line 6: a.png is .* in line 5",
    ),
    "ragged": ("source,emotion\na.png,happy\nb.png,sad,x\n", "line 3: 3 columns, expected 2 as in"),
    "open quote": ('source,emotion\na,"happy\n', r"no table \(EOF inside string"),
    "words": (
        "source,emotion\na,Angst\nb,happy\nc,Freude\nd,Angst\n",
        r"3 of 4 labels are no emotion: 'Angst' \(2\), 'Freude' \(1\).*map=\{\"Angst\": \"EMOTION",
    ),
    "header of two": ("pic,mood\na,happy\nb,sad\n", r"'mood' \(1\).*If the first line is a header"),
    "numbers": ("source,emotion\na,1\nb,7\n", r"7.*as FER2013's.*as RAF-DB's"),
    "strange number": ("source,emotion\na,1\nb,70\n", r"'70' \(1\)"),
    "twice": (
        "source,emotion\na.png,happy\nb.png,sad\na.png,fear\n",
        r"line 4: a.png is fear, but it is happiness in line 2",
    ),
    "twice by digest": (
        f"digest,emotion\n{DIGEST[0]},happy\n{DIGEST[0]},sad\n",
        f"line 3: {DIGEST[0]} is sadness",
    ),
    "no digest": ("digest,emotion\nabc,happy\n", "line 2: digest 'abc', expected 64 hexadecimal"),
    "votes that are words": (VOTES + "\nTraining,a.png,9,x,0,0,0,0,0,0,0,1\n", "'x' votes for"),
    "Usage unknown": (VOTES + "\nTrain5,a.png,9,0,0,0,0,0,0,0,0,1\n", "line 2: Usage 'Train5'"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_file_of_labels_is_named_as_what_it_is(text, message, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SourceError, match=message) as caught:
        read_labels(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file, expected FER"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(SourceError, match="a folder, expected one file of labels"):
        read_labels(tmp_path)


UNFIT = {
    "nothing matches": (
        "source,emotion\nx.png,happy\n", FOLDER, ["a.png"],
        "none of its 1 labels matches a row: the file has x.png, the source a.png. Write names",
    ),
    "another digest": (
        f"digest,emotion\n{'0' * 64},happy\n", FOLDER, ["a.png"],
        f"the file has {'0' * 64}, the source {DIGEST[0]}. Write digests",
    ),
    "source of another image": (
        f"source,digest,emotion\na.png,{DIGEST[1]},happy\n", FOLDER, ["a.png"],
        "line 2: another digest than the source's image a.png has",
    ),
    "a name that fits two": (
        "file,emotion\n1.png,happy\n", FOLDER, ["x/1.png", "y/1.png", "z/1.png"],
        r"line 2: '1.png' fits 3 images of the source, x/1.png and y/1.png among them; expected",
    ),
    "two that fit one": (
        "file,emotion\na/b/1.png,happy\nb/1.png,sad\n", FOLDER, ["x/a/b/1.png", "1.png"],
        r"line 3: b/1.png is sadness, but a/b/1.png is happiness in line 2, of the same image",
    ),
    "files for a CSV": (
        "file,emotion\nfer0000001.png,happy\n", CSV, ["1", "2"],
        "names files, such as fer0000001.png, while the source's rows have numbers, such as 1",
    ),
    "numbers that may count from 0": (
        "image,emotion\n0,happy\n1,sad\n", CSV, ["1", "2"], "expected a column source with row",
    ),
    "counted from 0": (
        "source,emotion\n0,happy\n1,sad\n", CSV, ["1", "2"], "source 0, while rows are counted",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "dataset", "sources", "message"), UNFIT.values(), ids=UNFIT)
def test_labels_that_do_not_fit_the_source_are_refused(
    text, dataset, sources, message, tmp_path
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SourceError, match=message) as caught:
        joined(path, sources, dataset)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_words_and_numbers_mean_what_the_map_says(tmp_path: Path) -> None:
    path = written(tmp_path, "source,emotion\na,Angst\nb,7\nc,Unsure\nd,happy\n")
    options = {"map": {"angst": "fear", "7": "contempt", "unsure": "none"}}
    found = joined(path, ["a", "b", "c", "d"], **options)
    assert named(found.emotion) == ["fear", "contempt", "none", "happiness"]


def test_options_that_mean_nothing_to_a_file_are_refused(tmp_path: Path) -> None:
    table = written(tmp_path, "source,emotion\na,1\n")
    with pytest.raises(SourceError, match=r"no votes, while min_agreement=0\.5 asks"):
        read_labels(table, min_agreement=0.5)
    with pytest.raises(SourceError, match=r'name their emotions, while labels_as="rafdb"'):
        read_labels(votes(tmp_path, "9,0,0,0,0,0,0,0,0,1"), labels_as="rafdb")
    for share in (-0.1, 1.1, True, "half", float("nan")):
        with pytest.raises(OptionError, match=r"min_agreement: .*expected a share"):
            read_labels(table, min_agreement=share)
    with pytest.raises(OptionError, match="labels_as: 'raf'"):
        read_labels(table, labels_as="raf")
