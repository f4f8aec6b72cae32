"""FaceDataset: what it takes, how images are recognised, and how arrays are by what they hold."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fer_features.faces.dataset import FaceDataset, pixel_digests

COLOUR = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
GREY = np.ascontiguousarray(COLOUR[..., 0])


def dataset(pixels: Any = GREY, **fields: Any) -> FaceDataset:
    n = len(pixels)
    given = {
        "emotion": np.arange(n).astype(np.int8),
        "usage": np.zeros(n, np.int8),
        "source": np.array([f"{i}.png" for i in range(n)], dtype=np.str_),
    }
    return FaceDataset("mine", "arrays", pixels, **{**given, **fields})


@pytest.mark.parametrize(
    ("pixels", "image", "form"),
    [
        (GREY, (6, 5, 1), "3 faces of 6x5 grey"),
        (COLOUR, (6, 5, 3), "3 faces of 6x5 colour"),
        (COLOUR[:1], (6, 5, 3), "1 face of 6x5 colour"),
        (GREY[:0], (6, 5, 1), "0 faces of 6x5 grey"),
        (np.zeros((1234, 2, 2), np.uint8), (2, 2, 1), "1,234 faces of 2x2 grey"),
    ],
)
def test_images_of_any_form_and_number_make_a_dataset(pixels, image, form):
    emotion = np.full(len(pixels), -1, np.int8)
    faces = dataset(pixels, emotion=emotion)
    assert faces.image == image
    assert len(faces) == len(faces.digest) == len(faces.group) == len(pixels)
    assert repr(faces) == f"FaceDataset('mine': {form})"


def test_arrays_have_no_file_and_no_groups_unless_told():
    faces = dataset()
    assert faces.sha256 is None
    assert faces.group.tolist() == ["", "", ""]
    assert (faces.limit, faces.skipped, faces.left_out) == (None, 0, {})


ACCOUNTS: dict[str, tuple[list[int], list[int], dict[str, int], list[str]]] = {
    "all there are, and what is not here": (
        [0, 3, 3, 6],
        [0, 0, 1, 2],
        {"damaged images": 1200, "hidden files and folders": 1},
        [
            "4 rows by emotion: anger 1, disgust 0, fear 0, happiness 2, sadness 0, surprise 0, "
            "neutral 1",
            "4 rows by usage: Training 2, PublicTest 1, PrivateTest 1",
            "left out 1,200: damaged images",
            "left out 1: hidden files and folders",
        ],
    ),
    "contempt where there is any": (
        [7],
        [-1],
        {},
        [
            "1 row by emotion: anger 0, disgust 0, fear 0, happiness 0, sadness 0, surprise 0, "
            "neutral 0, contempt 1",
            "1 row by usage: none 1",
        ],
    ),
    "some without": (
        [-1, 4],
        [-1, 2],
        {},
        [
            "2 rows by emotion: anger 0, disgust 0, fear 0, happiness 0, sadness 1, surprise 0, "
            "neutral 0, none 1",
            "2 rows by usage: Training 0, PublicTest 0, PrivateTest 1, none 1",
        ],
    ),
    "nothing said": (
        [-1] * 2,
        [-1] * 2,
        {},
        ["2 rows by emotion: none 2", "2 rows by usage: none 2"],
    ),
    "no rows": ([], [], {}, ["0 rows by emotion: none 0", "0 rows by usage: none 0"]),
    "many": (
        [3] * 1234,
        [0] * 1234,
        {},
        [
            "1,234 rows by emotion: anger 0, disgust 0, fear 0, happiness 1,234, sadness 0, "
            "surprise 0, neutral 0",
            "1,234 rows by usage: Training 1,234, PublicTest 0, PrivateTest 0",
        ],
    ),
}


@pytest.mark.parametrize("case", ACCOUNTS)
def test_a_dataset_gives_an_account_of_itself_a_line_each(case):
    emotion, usage, left_out, lines = ACCOUNTS[case]
    faces = dataset(
        np.zeros((len(emotion), 2, 2), np.uint8),
        emotion=np.array(emotion, dtype=np.int8),
        usage=np.array(usage, dtype=np.int8),
        left_out=left_out,
    )
    assert faces.account() == [f"mine: {line}" for line in lines]


@pytest.mark.parametrize(("pixels", "start"), [(GREY, b"6,5,1"), (COLOUR, b"6,5,3")])
def test_a_digest_is_the_sha256_of_form_and_pixels(pixels, start):
    by_hand = [hashlib.sha256(start + b",uint8\n" + image.tobytes()).digest() for image in pixels]
    faces = dataset(pixels)
    assert faces.digest.dtype == np.uint8
    assert [bytes(digest) for digest in faces.digest] == by_hand


def test_equal_bytes_in_another_form_are_another_image():
    forms = [(6, 5, 3), (5, 6, 3), (6, 15), (15, 6), (90, 1)]
    digests = {pixel_digests(COLOUR[:1].reshape(1, *form)).tobytes() for form in forms}
    assert len(digests) == len(forms)


def test_a_digest_does_not_depend_on_how_the_array_lies():
    turned = np.asfortranarray(COLOUR)
    every_second = np.repeat(COLOUR, 2, axis=2)[:, :, ::2]
    for pixels in (turned, every_second):
        np.testing.assert_array_equal(pixel_digests(pixels), pixel_digests(COLOUR))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "float pixels": (
        {"pixels": GREY / 255},
        r"^pixels: float64 \(3, 6, 5\), expected uint8 \(n, height, width\) for grey images or "
        r"\(n, height, width, 3\) for colour\.$",
    ),
    "one image": ({"pixels": GREY[0]}, r"^pixels: uint8 \(6, 5\), expected uint8 \(n, height"),
    "four channels": ({"pixels": np.zeros((2, 6, 5, 4), np.uint8)}, r"uint8 \(2, 6, 5, 4\), exp"),
    "no height": ({"pixels": np.zeros((2, 0, 5), np.uint8)}, r"^pixels: uint8 \(2, 0, 5\), exp"),
    "a list of pixels": ({"pixels": GREY.tolist()}, r"^pixels: a list, expected uint8"),
    "a list of emotions": (
        {"emotion": [0, 1, 2]}, r"^emotion: a list, expected int8 \(3,\), an id for each image\.$",
    ),
    "int64 emotions": ({"emotion": np.arange(3)}, r"^emotion: int64 \(3,\), expected int8 \(3,\)"),
    "too few usages": ({"usage": np.zeros(2, np.int8)}, r"^usage: int8 \(2,\), expected int8 \(3"),
    "an unknown emotion": (
        {"emotion": np.array([0, 6, 100], np.int8)},
        r"^emotion\[2\]: 100, expected an id from 0 to \d, or -1 for none\.$",
    ),
    "an unknown usage": (
        {"usage": np.array([0, -2, 3], np.int8)},
        r"^usage\[1\]: -2, expected an id from 0 to 2, or -1 for none\.$",
    ),
    "numbers for sources": (
        {"source": np.arange(3)},
        r"^source: int64 \(3,\), expected str \(3,\), a text for each image\.$",
    ),
    "a list of groups": ({"group": ["a", "b", "c"]}, r"^group: a list, expected str \(3,\)"),
    "too many groups": ({"group": np.full(4, "a")}, r"^group: str \(4,\), expected str \(3,\)"),
    "a NUL": (
        {"source": np.array(["a", "b\0c", "d"])},
        r"^source\[1\]: 'b\\x00c' holds a NUL character, which a store cannot keep\. Leave it out",
    ),
    "half a character": (
        {"group": np.array(["a", "b", "c\udce9"])},
        r"^group\[2\]: 'c\\udce9' is not encodable as UTF-8, which a store cannot keep\. Give it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_together_is_refused_with_its_place(case):
    fields, message = BAD[case]
    with pytest.raises(ValueError, match=message) as raised:
        replace(dataset(), **fields)
    assert len(str(raised.value).splitlines()) == 1


# What a dataset is recognised by


def test_the_content_hash_is_taken_as_its_description_says():
    faces = dataset(COLOUR, group=np.array(["Zoë", "", "b"]))
    parts = [
        b"image 5\n6,5,3",
        b"digest 96\n" + faces.digest.tobytes(),
        b"emotion 3\n\0\1\2",
        b"usage 3\n\0\0\0",
        b"group 8\n" + "Zoë\0\0b\0".encode(),
        b"source 18\n0.png\x001.png\x002.png\0",
    ]
    assert faces.content_sha256 == hashlib.sha256(b"".join(parts)).hexdigest()


CHANGES: dict[str, Any] = {
    "pixels": GREY ^ 1,
    "emotion": np.array([0, 1, 3], np.int8),
    "usage": np.array([0, 0, 1], np.int8),
    "source": np.array(["0.png", "1.png", "3.png"]),
    "group": np.array(["", "", "a"]),
}


@pytest.mark.parametrize("field", CHANGES)
def test_the_content_hash_changes_with_every_part_of_a_row(field):
    faces = dataset(sha256="ab" * 32)
    changed = replace(faces, **{field: CHANGES[field]})
    assert changed.sha256 == faces.sha256
    assert changed.content_sha256 != faces.content_sha256


def test_the_content_hash_does_not_change_with_what_a_caller_says_beside_the_rows():
    faces = dataset()
    other = replace(
        faces, name="b", kind="csv", sha256="ab" * 32, limit=3, skipped=1, left_out={"bad": 1}
    )
    assert other.content_sha256 == faces.content_sha256


def test_the_order_of_rows_counts_and_the_width_of_their_texts_does_not():
    faces = dataset()
    back = {
        name: getattr(faces, name)[::-1]
        for name in ("pixels", "emotion", "usage", "source", "group")
    }
    assert replace(faces, **back).content_sha256 != faces.content_sha256
    assert replace(faces, source=faces.source.astype("<U40")).content_sha256 == faces.content_sha256


def test_no_two_contents_hash_alike_because_their_texts_join_alike():
    texts = [["ab", "", "c"], ["a", "b", "c"], ["", "ab", "c"], ["abc", "", ""], ["", "", "abc"]]
    pairs = [(group, source) for group in texts for source in texts]
    made = [dataset(group=np.array(group), source=np.array(source)) for group, source in pairs]
    assert len({faces.content_sha256 for faces in made}) == len(pairs)


def test_a_dataset_of_no_rows_has_a_content_hash_for_each_form():
    assert dataset(GREY[:0]).content_sha256 != dataset(COLOUR[:0]).content_sha256
