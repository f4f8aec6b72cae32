"""What the commands share: their errors, exit statuses, messages and task options."""

import contextlib
import difflib
import io
import json
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from fer_features.errors import FerFeaturesError

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Terminated(BaseException):
    """SIGTERM, raised so that files are closed on the way out."""


class Command(click.Command):
    """A command whose every failure is one line and an exit status, without a traceback.

    Status 2: bad input, or a system that refuses. 130: Ctrl-C. 143: SIGTERM. 1: a fault of this
    package. ``--debug`` shows tracebacks.
    """

    stopped = "What is finished is kept; the same call goes on with it."
    """What is said of a stopped call; a command that keeps something else sets it."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        _ready_streams()
        with contextlib.redirect_stderr(_Messages(sys.stderr)):
            self._run(*args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> NoReturn:
        debug = "--debug" in (kwargs.get("args") or sys.argv)
        try:
            with _stoppable():
                status = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            name = getattr(error, "ctx", None)
            hint = f" See {name.command_path} --help." if name else ""
            status = _fail(_one_line(error.format_message()) + hint, 2, debug)
        except FerFeaturesError as error:
            status = _fail(_one_line(as_flags(str(error), self.params)), 2, debug)
        except (click.Abort, KeyboardInterrupt):
            status = _fail(f"stopped by Ctrl-C. {self.stopped}", 130, debug)
        except _Terminated:
            status = _fail(f"stopped by SIGTERM. {self.stopped}", 143, debug)
        except BrokenPipeError:
            _to_nowhere(1)
            status = 1
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            reason = f"{place}{error.strerror or _one_line(str(error))}"
            status = _fail(f"{reason}. The system refuses it: mend that and call again.", 2, debug)
        except MemoryError:
            status = _fail("not enough memory. Free some, or take less at a time.", 2, debug)
        except ImportError as error:
            missing = f"{_one_line(str(error))}. A package is missing or broken"
            status = _fail(f"{missing}: install fer-features anew.", 2, debug)
        except Exception as error:
            said = _one_line(f"{type(error).__name__}: {error}").rstrip(".")
            fault = "This is a fault of fer-features: call again with --debug and report it."
            status = _fail(f"{said}. {fault}", 1, debug)
        sys.exit(status or 0)


def as_flags(text: str, parameters: Sequence[click.Parameter]) -> str:
    """Return an error of the library with its remedies as options of a command.

    The library spells them as Python does, ``split="random"``, ``map={"7": "anger"}`` or
    ``skip_bad=True``; a command's user is told ``--split random``, ``--map 7=anger``,
    ``--skip-bad``. What names no parameter of the command stays as it is.
    """
    flags = {
        str(each.name): max(each.opts, key=len)
        for each in parameters
        if isinstance(each, click.Option)
    }
    text = text.replace('classes="all"', flags.get("all_emotions", 'classes="all"'))

    def flag(found: "re.Match[str]") -> str:
        name, value = found["name"], found["value"]
        if name not in flags:
            return found[0]
        if value in ("True", "False"):
            return flags[name] if value == "True" else found[0]
        pairs = re.findall(r"""["']([^"']*)["']: *["']([^"']*)["']""", value)
        values = [f"{key}={meant}" for key, meant in pairs] or [value.strip("\"'")]
        return " ".join(f"{flags[name]} {shlex.quote(each)}" for each in values)

    values = r"""\{[^}]*\}|"[^"]*"|'[^']*'|[\w+-]+(?:\.\w+)*"""
    return re.sub(rf"(?<![\w./=-])(?P<name>[A-Za-z_]\w*)=(?P<value>{values})", flag, text)


class Name(click.ParamType):  # type: ignore[type-arg]
    """One of a few names; a misspelt one is told the nearest."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.name = "|".join(names)

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return self.name

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value not in self.names:
            near = difflib.get_close_matches(value, self.names, n=1)
            self.fail(
                f"{value!r}, expected {' or '.join(self.names)}."
                + (f" Did you mean {near[0]}?" if near else ""),
                param,
                ctx,
            )
        return value


def messages_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--quiet``, ``--debug`` and ``--version``, and send messages to standard error."""
    for option in (
        click.version_option(None, "--version", package_name="fer-features"),
        click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks."),
        click.option("--quiet", is_flag=True, help="Show results and errors only."),
    ):
        function = option(function)
    return function


def network_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--backbone`` and ``--weights``: where the files of a run's network lie now."""
    for option in (
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The network's weights, likewise.",
        ),
        click.option(
            "--backbone",
            type=click.Path(path_type=Path),
            metavar="FILE.keras",
            help="The network's file, where it is not where the run's store had it.",
        ),
    ):
        function = option(function)
    return function


def show_messages(quiet: bool) -> None:
    """Print the library's messages on standard error, unless quiet."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("fer_features")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


def show_notices(report: Path) -> list[str]:
    """Print on standard error what a report says must be known before any number.

    Returns
    -------
    list of str
        Its answers, one for each set of images, each followed by what is said of raters.
    """
    said = json.loads(report.with_name("report.json").read_text(encoding="utf-8"))
    for notice in said["notices"]:
        logging.getLogger("fer_features").info(notice.replace("select=", "--select "))
    answers = []
    for section in said["sections"]:
        answers.append(section["answer"])
        if section["raters"]:
            answers.append(section["raters"]["words"])
    return answers


def task_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that make a :class:`Task`."""
    for option in (
        click.option(
            "--duplicates",
            type=Name(("drop", "keep")),
            default="drop",
            show_default=True,
            help="drop: each image once, none whose copies disagree on the class. "
            "keep: every row, as in the original experiment. With --split usage, drop also leaves "
            "out images of a group that a later split has, and keep counts them.",
        ),
        click.option(
            "--split-seed",
            type=int,
            default=42,
            show_default=True,
            help="Seed of the rows drawn and of their split.",
        ),
        click.option(
            "--split",
            type=Name(("random", "usage")),
            default="random",
            show_default=True,
            help="random: 60/20/20. usage: the source's Training, PublicTest and PrivateTest.",
        ),
        click.option(
            "--per-class",
            metavar="N|min|all",
            help="Images a class: a number, as many as the smallest class has, or all. "
            "[default: 8500 for the default task with the random split and no --labels, else all]",
        ),
        click.option(
            "--group-by",
            metavar="REGEX",
            help="Never split a person or a sequence: what the first parentheses of this regular "
            "expression match in each image's source (its path or row number) is one. "
            "'^([^/]+)/' is the first folder, '(S[0-9]+)_' is S12 of a/S12_3.png. [default: the "
            "groups that the source has]",
        ),
        click.option(
            "--map",
            "map",
            multiple=True,
            metavar="WORD=EMOTION",
            help="What a word or a number in --labels means, or WORD=none; again for others.",
        ),
        click.option(
            "--labels-as",
            metavar="ORDER",
            help="Whose numbers --labels has: fer2013, ferplus, affectnet, rafdb or ckplus. "
            "[default: FER2013's, 0 anger to 6 neutral]",
        ),
        click.option(
            "--min-agreement",
            type=float,
            default=0.0,
            metavar="P",
            help="Of FER+'s votes, leave out images on which fewer than this share of the raters "
            "agree: 0.5 is half of them. [default: 0]",
        ),
        click.option(
            "--labels",
            metavar="FILE",
            help="Take the emotions from this file instead of the store: FER+'s fer2013new.csv or "
            "label.csv, RAF-DB's list, or a table with a column source, digest or file and a "
            "column emotion. The store stays as it is, and no image is embedded again.",
        ),
        click.option(
            "--all-emotions",
            is_flag=True,
            help="A class for each emotion that the data have, up to eight.",
        ),
        click.option(
            "--class",
            "classes",
            multiple=True,
            metavar="NAME=EMOTION[,EMOTION]|rest",
            help="A class and its emotions, or all that no other class has; twice or more, the "
            "positive class first. [default: positive=happiness and negative=anger,fear,sadness]",
        ),
    ):
        function = option(function)
    return function


TASK_OPTIONS = (
    "classes", "all_emotions", "per_class", "split", "split_seed", "duplicates", "labels",
    "min_agreement", "labels_as", "map", "group_by",
)  # fmt: skip
"""The parameters that :func:`task_options` adds to a command."""


def make_task(
    classes: Sequence[str] = (),
    all_emotions: bool = False,
    per_class: str | None = None,
    map: Sequence[str] = (),  # noqa: A002
    **options: Any,
) -> Any:
    """Return the :class:`Task` that the options describe; ``options`` are its own others."""
    from fer_features.experiment.task import Task

    options["map"] = parse_map(map)
    if per_class is not None:
        options["per_class"] = int(per_class) if per_class.isdecimal() else per_class
    if all_emotions:
        if classes:
            raise click.UsageError("--all-emotions and --class: expected one of the two.")
        return Task.all_emotions(**options)
    if not classes:
        return Task(**options)
    groups: dict[str, list[str]] = {}
    for text in classes:
        name, equals, emotions = text.partition("=")
        if not (name and equals and emotions) or name in groups:
            raise click.UsageError(
                f"--class {text!r}: expected NAME=EMOTION[,EMOTION] or NAME=rest with a new name."
            )
        groups[name] = emotions.split(",")
    return Task(groups, **options)


def parse_map(texts: Sequence[str]) -> dict[str, str]:
    """Return what each ``WORD=EMOTION`` says; the word may hold ``=`` itself."""
    pairs = dict[str, str]()
    for text in texts:
        word, equals, emotion = text.rpartition("=")
        if not (equals and emotion.strip()):
            raise click.UsageError(
                f"--map {text!r}: expected WORD=EMOTION, such as --map joyful=happiness."
            )
        if pairs.setdefault(word, emotion) != emotion:
            raise click.UsageError(f"--map {word}: given twice, expected each word once.")
    return pairs


class _Messages:
    """Standard error for messages, none of which is worth a pass: what it refuses is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # its reader has ended, as in `2>&1 | head`: so does the command
        except OSError:
            _to_nowhere(2)


def _ready_streams() -> None:
    """Open what was closed of standard input, output and error, and let any name be printed.

    Else the next file that is opened takes the place, a store as well, and is written messages to.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _to_nowhere(descriptor: int) -> None:
    """Let what is still to be written to a standard stream go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Raise what stops a call as such, also where C code that is being imported hides it."""
    came: list[type[BaseException]] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(KeyboardInterrupt if number == signal.SIGINT else _Terminated)
        raise came[-1]

    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGTERM, stop)
    if interrupts:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    except (click.ClickException, FerFeaturesError, OSError, MemoryError):
        raise  # what could not be kept, perhaps
    except Exception as error:
        if came:
            raise came[-1] from error
        raise
    finally:
        # Processes that end meanwhile are nothing to stop: the system ends this one in silence.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if interrupts:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _fail(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"Error: {message}", err=True)
    return status


def _one_line(text: str) -> str:
    return " ".join(text.split())
