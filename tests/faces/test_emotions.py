"""What the words and numbers of a source mean, and which of them mean nothing."""

import unicodedata

import pytest

from fer_features.errors import OptionError
from fer_features.faces.emotions import (
    EMOTION_WORDS,
    EMOTIONS,
    NONE,
    ORDERS,
    USAGES,
    AmbiguousNumbersError,
    Wording,
    checked_order,
    did_you_mean,
    emotion_of,
    usage_of,
    whole_number,
)

WORDS = {
    "anger": "anger angry ANGRY Anger",
    "disgust": "disgust disgusted",
    "fear": "fear fearful afraid scared Scared",
    "happiness": "happiness happy joy joyful HAPPY",
    "sadness": "sadness sad",
    "surprise": "surprise surprised",
    "neutral": "neutral neutrality",
    "contempt": "contempt contemptuous",
}


@pytest.mark.parametrize("emotion", WORDS)
def test_each_emotion_goes_by_its_words_in_any_case_and_with_a_number_before_it(emotion):
    for word in WORDS[emotion].split():
        for written in (word, f" {word} ", f"0_{word}", f"3. {word}", f"07-{word}"):
            assert EMOTIONS[emotion_of(written)] == emotion


@pytest.mark.parametrize(
    "word",
    [
        *["Angst", "not_neutral", "unhappy", "anger2", "happyness", "sadly", "angry_faces", "none"],
        *["stage", "unknown", "train", "joyless", "happy/sad", "no emotion", "1happy", "happy_0"],
        *["", " ", "_happy", "0_", "3_", "3x", "3", "-1"],
    ],
)
def test_other_words_are_no_emotion(word):
    assert emotion_of(word) is None


USAGE_WORDS = {
    "Training": "train training Train TRAINING train_set train-set trainset training_set train_data"
    " FER2013Train fer2013_train train.split train_images",
    "PublicTest": "val valid validation dev VAL Validation public_test PublicTest public-test"
    " val_set validation_set FER2013Valid dev_split",
    "PrivateTest": "test testing eval evaluation TEST private_test PrivateTest Private-Test"
    " test_set FER2013Test test_images",
}


@pytest.mark.parametrize("usage", USAGE_WORDS)
def test_each_usage_goes_by_its_words(usage):
    for word in [*USAGE_WORDS[usage].split(), usage, f" {usage} "]:
        assert usage_of(word) is not None, word
        assert USAGES[usage_of(word)] == usage
    spaced = {"Training": "train set", "PublicTest": "Public Test", "PrivateTest": "Private Test"}
    assert USAGES[usage_of(spaced[usage])] == usage


@pytest.mark.parametrize(
    "word",
    [
        *["stage", "holdout", "trainer", "testimony", "retest", "train1", "train_test", "trains"],
        *["images", "data", "set", "fer2013", "vale", "happy", "0", "1", "", " "],
    ],
)
def test_other_words_are_no_usage(word):
    assert usage_of(word) is None


def test_no_word_is_both_an_emotion_and_a_usage():
    assert not [word for word in EMOTION_WORDS if usage_of(word) is not None]


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("3", 3), (" 3 ", 3), ("3.0", 3), ("3.", 3), ("03", 3), ("3.000", 3), ("-1", -1), ("+2", 2),
        ("10", 10), ("3.5", None), ("3.01", None), ("3e0", None), ("three", None), ("", None),
        (".0", None), ("1_0", None), ("\uff13", None), ("9" * 10, None), ("3 4", None),
    ],
)  # fmt: skip
def test_a_whole_number_may_be_written_with_a_fraction_of_nothing(word, number):
    assert whole_number(word) == number


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("suprise", "surprise"), ("Hapy", "happy"), ("nuetral", "neutral"), ("angery", "angry"),
        ("disgusst", "disgust"), ("surprized", "surprised"), ("happyness", "happiness"),
        ("contemt", "contempt"), ("fearfull", "fearful"), ("Neutrall", "neutral"),
    ],
)  # fmt: skip
def test_a_misspelt_word_is_told_the_nearest(word, meant):
    assert did_you_mean(word, EMOTION_WORDS) == f" (did you mean '{meant}'?)"


@pytest.mark.parametrize(
    "word",
    [
        *["Angst", "angst", "not_neutral", "non_neutral", "unhappy", "dishappy", "sadism", "stage"],
        *["neural_net", "joystick", "images", "cats", "mad", "rage", "feature", "x", "3", ""],
    ],
)
def test_a_word_that_says_something_else_is_told_none(word):
    assert did_you_mean(word, EMOTION_WORDS) == ""


def test_a_column_stage_is_no_misspelt_usage():
    assert did_you_mean("stage", ["Usage"]) == ""
    assert did_you_mean("Usgae", ["Usage"]) == " (did you mean 'Usage'?)"


# Numbers of known data sets, as their own descriptions have them

PUBLISHED = {
    "fer2013": "anger disgust fear happiness sadness surprise neutral",
    "ferplus": "neutral happiness surprise sadness anger disgust fear contempt - -",
    "affectnet": "neutral happiness sadness surprise fear disgust anger contempt - - -",
    "rafdb": "nothing surprise fear disgust happiness sadness anger neutral",
    "ckplus": "neutral anger contempt disgust fear happiness sadness surprise",
}


@pytest.mark.parametrize("order", PUBLISHED)
def test_an_order_is_the_published_one(order):
    said = PUBLISHED[order].split()
    expected = {
        number: NONE if name == "-" else EMOTIONS.index(name)
        for number, name in enumerate(said)
        if name != "nothing"
    }
    assert ORDERS[order][1] == expected
    numbers = {str(number) for number in expected}
    assert Wording(labels_as=order).read(numbers, "fer2013") == {
        str(number): emotion for number, emotion in expected.items()
    }
    beyond = str(len(said))
    assert beyond not in Wording(labels_as=order).read([*numbers, beyond], None)


def test_there_are_no_other_orders():
    assert set(ORDERS) == set(PUBLISHED)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("RAF-DB", "rafdb"), ("raf_db", "rafdb"), ("FER+", "ferplus"), ("FERPlus", "ferplus"),
        ("CK+", "ckplus"), ("AffectNet", "affectnet"), ("FER2013", "fer2013"),
        ("fer-2013", "fer2013"), (None, None),
    ],
)  # fmt: skip
def test_an_order_goes_by_the_name_its_data_set_gives_itself(written, name):
    assert checked_order(written) == name


def test_an_unknown_order_is_refused_with_those_known():
    with pytest.raises(OptionError) as raised:
        Wording(labels_as="rafd")
    assert str(raised.value) == (
        "labels_as: 'rafd', expected one of fer2013, ferplus, affectnet, rafdb, ckplus (did you "
        "mean 'rafdb'?). Name one, or map each number."
    )


# What is read

SEVEN = {str(number): number for number in range(7)}


def test_fer2013s_numbers_are_read_where_numbers_are_its():
    assert Wording().read(SEVEN, "fer2013") == SEVEN
    assert Wording().read(["3.0", " 4", "happy"], "fer2013") == {"3.0": 3, " 4": 4, "happy": 3}


def test_numbers_without_an_owner_are_refused():
    for numbers in (["3"], [*SEVEN], ["1", "2"]):
        with pytest.raises(AmbiguousNumbersError):
            Wording().read(numbers, None)


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        (range(1, 8), ["ferplus", "affectnet", "rafdb", "ckplus"]),
        (range(8), ["ferplus", "affectnet", "ckplus"]),
        (range(10), ["ferplus", "affectnet"]),
        (range(11), ["affectnet"]),
        ([7], ["ferplus", "affectnet", "rafdb", "ckplus"]),
    ],
)
def test_numbers_beyond_fer2013s_are_refused_with_those_who_may_own_them(numbers, named):
    with pytest.raises(AmbiguousNumbersError) as raised:
        Wording().read(map(str, numbers), "fer2013")
    orders = " or ".join(f'labels_as="{name}"' for name in named)
    assert f"Say whose they are with {orders}, or" in str(raised.value)
    assert str(raised.value).endswith(f'means with map={{"{max(numbers)}": "EMOTION"}}')


def test_the_readings_are_shown_number_by_number():
    with pytest.raises(AmbiguousNumbersError) as raised:
        Wording().read(["0", "7", "1.0"], "fer2013")
    assert str(raised.value) == (
        "the numbers 0, 1, 7 for emotions, which can be read: "
        "as FER2013's 0 anger, 1 disgust, 7 nothing; "
        "as FER+'s 0 neutral, 1 happiness, 7 contempt; "
        "as AffectNet's 0 neutral, 1 happiness, 7 contempt; "
        "as CK+'s 0 neutral, 1 anger, 7 surprise. "
        'Say whose they are with labels_as="ferplus" or labels_as="affectnet" or '
        'labels_as="ckplus", or what each '
        'means with map={"7": "EMOTION"}'
    )


def test_numbers_of_no_order_are_merely_unknown():
    assert Wording().read([*SEVEN, "12", "-1", "2.5"], "fer2013") == SEVEN


def test_mapped_numbers_are_no_longer_in_question():
    assert Wording({"7": "contempt"}).read([*SEVEN, "7.0"], "fer2013") == {**SEVEN, "7.0": 7}
    rafdb = {"1": "surprise", "2": "fear", "7": "none"}
    assert Wording(rafdb).read(["1", "2", "7"], None) == {"1": 5, "2": 2, "7": NONE}


def test_a_map_goes_before_words_and_orders():
    wording = Wording({"happy": "sadness", "0": "fear"}, labels_as="ferplus")
    assert wording.read(["Happy", "0", "1"], None) == {"Happy": 4, "0": 2, "1": 3}


def test_others_are_what_is_not_known_otherwise():
    wording = Wording({"*": "none", "wut": "anger"})
    assert wording.read(["wut", "freude", "happy", "3", "7", ""], "fer2013") == {
        "wut": 0, "freude": NONE, "happy": 3, "3": 3, "7": NONE, "": NONE,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC"])
def test_words_of_other_languages_are_found_however_they_are_composed(form):
    given = unicodedata.normalize(form, "ÄRGER")
    assert Wording({"ärger": "anger", "怒り": "anger"}).read([given, "怒り"], None) == {
        given: 0, "怒り": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("map_", "message"),
    [
        (
            {"wut": "angr"},
            "map: wut=angr, expected an emotion (anger, disgust, fear, happiness, sadness, "
            "surprise, neutral, contempt) or none (did you mean 'angry'?). Name one.",
        ),
        ({"wut": "3"}, "map: wut=3, expected an emotion (anger"),
        ((("wut", "anger"), ("WUT", "fear")), "map: WUT=fear, expected each word once."),
        ((("3", "anger"), ("3.0", "fear")), "map: 3.0=fear, expected each word once."),
    ],
)
def test_a_map_that_means_nothing_is_refused(map_, message):
    with pytest.raises(OptionError) as raised:
        Wording(map_)
    assert str(raised.value).startswith(message)
    assert len(str(raised.value).splitlines()) == 1


def test_a_word_may_be_mapped_twice_to_the_same():
    assert Wording((("wut", "anger"), ("Wut", "ANGRY"))).mapped == {"wut": "anger"}


def test_a_seven_that_is_mapped_does_not_settle_numbers_that_count_from_one():
    with pytest.raises(AmbiguousNumbersError):
        Wording({"7": "neutral"}).read(map(str, range(1, 8)), "fer2013")
    read = Wording({"7": "contempt"}).read(map(str, range(8)), "fer2013")
    assert read == {str(i): i for i in range(8)}
    every = {str(i): "fear" for i in range(1, 8)}
    assert set(Wording(every).read(map(str, range(1, 8)), "fer2013").values()) == {2}
