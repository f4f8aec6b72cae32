"""The eight emotions and the three usages, and how the words and numbers of a source are read."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from fer_features.errors import OptionError

EMOTIONS = (
    "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt",
)  # fmt: skip
"""Names of the emotion ids, in order: ``EMOTIONS[3] == "happiness"``. The first seven are
FER2013's; contempt is FER+'s, AffectNet's and CK+'s eighth."""

USAGES = ("Training", "PublicTest", "PrivateTest")
"""FER2013's own three-way split, in the order of the ids a store keeps."""

NONE = -1
"""The emotion or usage id of a row whose source states none."""

SYNONYMS = {
    "anger": ("anger", "angry"),
    "disgust": ("disgust", "disgusted"),
    "fear": ("fear", "fearful", "afraid", "scared"),
    "happiness": ("happiness", "happy", "joy", "joyful"),
    "sadness": ("sadness", "sad"),
    "surprise": ("surprise", "surprised"),
    "neutral": ("neutral", "neutrality"),
    "contempt": ("contempt", "contemptuous"),
}
"""The words that mean each emotion, in any case."""

EMOTION_WORDS = {word: EMOTIONS.index(name) for name in EMOTIONS for word in SYNONYMS[name]}
"""Words in lower case, and the emotion id each means."""

_USAGE_WORDS = {
    "train": 0, "training": 0,
    "val": 1, "valid": 1, "validation": 1, "dev": 1, "publictest": 1,
    "test": 2, "testing": 2, "eval": 2, "evaluation": 2, "privatetest": 2,
}  # fmt: skip

ORDERS: dict[str, tuple[str, dict[int, int]]] = {
    "fer2013": ("FER2013", dict(enumerate(range(7)))),
    "ferplus": ("FER+", {0: 6, 1: 3, 2: 5, 3: 4, 4: 0, 5: 1, 6: 2, 7: 7, 8: NONE, 9: NONE}),
    "affectnet": (
        "AffectNet", {0: 6, 1: 3, 2: 4, 3: 5, 4: 2, 5: 1, 6: 0, 7: 7, 8: NONE, 9: NONE, 10: NONE},
    ),
    "rafdb": ("RAF-DB", {1: 5, 2: 2, 3: 1, 4: 3, 5: 4, 6: 0, 7: 6}),
    "ckplus": ("CK+", {0: 6, 1: 0, 2: 7, 3: 1, 4: 2, 5: 3, 6: 4, 7: 5}),
}  # fmt: skip
"""Numbers of data sets known by name: how it is called, and the emotion id of each number.

-1 stands for what is no emotion: FER+'s unknown and no face, AffectNet's none, uncertain and no
face. Sources: the data sets' own descriptions (Goodfellow et al. 2013; Barsoum et al. 2016;
Mollahosseini et al. 2017; Li et al. 2017; Lucey et al. 2010)."""

NO_EMOTION = "none"
"""What a word is mapped to that means no emotion."""

OTHERS = "*"
"""In a map, every word that is not known otherwise."""


def usage_of(word: str) -> int | None:
    """Return the usage id that a cell or a folder's name means, None if it is no such word.

    ``train_set``, ``Public Test``, ``FER2013Train`` and the like mean what they say.
    """
    plain = re.sub(r"[\s_.-]+", "", word.casefold())
    plain = re.sub(r"^fer2013|(set|split|data|images)$", "", plain)
    return _USAGE_WORDS.get(plain)


def plain_word(word: str) -> str:
    """Return a word as words are compared: composed Unicode, no case, no space around."""
    return unicodedata.normalize("NFKC", word).casefold().strip()


def whole_number(word: str) -> int | None:
    """Return the whole number that a word writes (``"3"``, ``"3.0"``), None if it is none."""
    match = re.fullmatch(r"([+-]?[0-9]{1,9})(\.0*)?", word.strip())
    return int(match[1]) if match else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'X'?)"`` for a misspelt word, else ``""``.

    Near means: the same first letter, and nearly all letters in the same order. A word that is
    merely like another ("Angst", "not_neutral", "unhappy") says something else.
    """
    plain = plain_word(word)
    near = [
        (SequenceMatcher(None, plain, each.casefold()).ratio(), each)
        for each in known
        if plain[:1] == each[:1].casefold()
    ]
    ratio, name = max(near, default=(0.0, ""))
    return f" (did you mean {name!r}?)" if ratio >= 0.8 else ""


@dataclass(frozen=True)
class Wording:
    """How the words and numbers of a source that stand for emotions are to be read.

    Parameters
    ----------
    map : mapping of str to str
        What words or numbers mean: the name of an emotion, or ``"none"``. ``""`` is a blank cell,
        ``"*"`` every word that is not known otherwise. It goes before everything else.
    labels_as : str, optional
        Whose numbers they are: a name of :data:`ORDERS`, also as the data set writes itself
        ("RAF-DB").

    Raises
    ------
    OptionError
        Something else is given.
    """

    map: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    labels_as: str | None = None

    def __post_init__(self) -> None:
        pairs = self.map.items() if isinstance(self.map, Mapping) else self.map
        checked: dict[str, str] = {}
        for word, name in pairs:
            key = _key(str(word))
            meant = plain_word(str(name))
            if meant not in EMOTION_WORDS and meant != NO_EMOTION:
                raise OptionError(
                    f"map: {word}={name}, expected an emotion ({', '.join(EMOTIONS)}) or none"
                    f"{did_you_mean(str(name), EMOTION_WORDS)}. Name one."
                )
            value = meant if meant == NO_EMOTION else EMOTIONS[EMOTION_WORDS[meant]]
            if checked.get(key, value) != value:
                raise OptionError(f"map: {word}={name}, expected each word once. Leave one out.")
            checked[key] = value
        object.__setattr__(self, "map", tuple(sorted(checked.items())))
        object.__setattr__(self, "labels_as", checked_order(self.labels_as))

    @property
    def mapped(self) -> dict[str, str]:
        """The map as a dict, its words as they are compared."""
        return dict(self.map)

    def read(self, words: Iterable[str], numbers_as: str | None) -> dict[str, int]:
        """Return the emotion id of each word that has one; -1 of those that mean none.

        Parameters
        ----------
        words : iterable of str
            All distinct words of a source.
        numbers_as : str, optional
            Whose numbers they are if ``labels_as`` does not say it and all of them fit; None if
            numbers mean nothing by themselves, as in the names of folders.

        Raises
        ------
        AmbiguousNumbersError
            Some numbers are not those of ``numbers_as``, and may be another data set's.
        """
        mapped, found = self.mapped, dict[str, int]()
        numbers: dict[str, int] = {}
        unknown, settled = [], set[int]()
        for word in words:
            key = _key(word)
            if key in mapped:
                found[word] = _id(mapped[key])
                settled |= {number for number in [whole_number(word)] if number is not None}
            elif (emotion := emotion_of(word)) is not None:
                found[word] = emotion
            elif (number := whole_number(word)) is not None:
                numbers[word] = number
            else:
                unknown.append(word)
        order = self._order(set(numbers.values()), numbers_as, settled)
        for word, number in numbers.items():
            if number in order:
                found[word] = order[number]
            else:
                unknown.append(word)
        if OTHERS in mapped:
            found |= dict.fromkeys(unknown, _id(mapped[OTHERS]))
        return found

    def _order(
        self, numbers: set[int], numbers_as: str | None, settled: set[int]
    ) -> dict[int, int]:
        """Return what numbers mean.

        That one beyond FER2013's is mapped settles the others where there is a 0 among them;
        numbers from 1 on may still be another's.
        """
        if self.labels_as is not None:
            return ORDERS[self.labels_as][1]
        meant = ORDERS[numbers_as][1] if numbers_as is not None else {}
        if numbers and 0 not in numbers | settled:
            numbers = numbers | settled
        beyond = numbers - set(meant)
        # An order that knows more of them, and what is beyond as an emotion, may be meant.
        likely = [
            name
            for name, (_, order) in ORDERS.items()
            if len(numbers & set(order)) > len(numbers & set(meant))
            and any(order.get(number, NONE) != NONE for number in beyond)
        ]
        if likely and OTHERS not in self.mapped:
            best = max(len(numbers & set(ORDERS[name][1])) for name in likely)
            likely = [name for name in likely if len(numbers & set(ORDERS[name][1])) == best]
            raise AmbiguousNumbersError(numbers, likely, numbers_as)
        return meant


_MOST_SHOWN = 12
"""How many numbers a message shows: more than any order has."""


class AmbiguousNumbersError(Exception):
    """Numbers that may be one data set's or another's; the message shows the readings.

    It is a clause, to follow the source's name, and names the parameters that decide.
    """

    def __init__(self, numbers: set[int], likely: list[str], numbers_as: str | None) -> None:
        shown = [numbers_as, *likely]
        readings = []
        for name in dict.fromkeys(each for each in shown if each is not None):
            called, order = ORDERS[name]
            said = ", ".join(f"{n} {_name(order.get(n))}" for n in sorted(numbers)[:_MOST_SHOWN])
            more = f" and {len(numbers) - _MOST_SHOWN:,} more" * (len(numbers) > _MOST_SHOWN)
            readings.append(f"as {called}'s {said}{more}")
        named = " or ".join(f'labels_as="{name}"' for name in likely)
        many = "s" * (len(numbers) > 1)
        super().__init__(
            f"the number{many} {_range(numbers)} for emotions, which can be read: "
            f"{'; '.join(readings)}. Say whose they are with {named}, or what each "
            f'means with map={{"{max(numbers)}": "EMOTION"}}'
        )


def emotion_of(word: str) -> int | None:
    """Return the emotion id that a word means, whatever its case; None if it is no such word.

    A number before it ("0_angry", "3. happy") numbers the folder, and the word says what it is.
    """
    plain = re.sub(r"^[0-9]+[\s._-]+(?=[^\W\d_])", "", plain_word(word))
    return EMOTION_WORDS.get(plain)


def checked_order(labels_as: str | None) -> str | None:
    """Return the name in :data:`ORDERS` of whose numbers are meant, however it is written.

    Raises
    ------
    OptionError
        There is no such name.
    """
    if labels_as is None:
        return None
    plain = re.sub(r"[\W_]+", "", str(labels_as).casefold().replace("+", "plus"))
    if plain in ORDERS:
        return plain
    raise OptionError(
        f"labels_as: {labels_as!r}, expected one of {', '.join(ORDERS)}"
        f"{did_you_mean(str(labels_as), ORDERS)}. Name one, or map each number."
    )


def _key(word: str) -> str:
    number = whole_number(word)
    return plain_word(word) if number is None else str(number)


def _id(name: str) -> int:
    return NONE if name == NO_EMOTION else EMOTIONS.index(name)


def _name(emotion: int | None) -> str:
    if emotion is None:
        return "nothing"
    return NO_EMOTION if emotion == NONE else EMOTIONS[emotion]


def _range(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    if len(numbers) > 2 and len(numbers) == high - low + 1:
        return f"{low} to {high}"
    more = f" and {len(numbers) - _MOST_SHOWN:,} more" * (len(numbers) > _MOST_SHOWN)
    return ", ".join(map(str, sorted(numbers)[:_MOST_SHOWN])) + more
