"""``fer-predict``: what a run's classifier says of images."""

import csv
import glob
import io
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fer_features.cli.command import (
    SETTINGS,
    Command,
    Name,
    messages_options,
    network_options,
    show_messages,
)
from fer_features.errors import OptionError

if TYPE_CHECKING:
    from fer_features.prediction.classifier import Answer

log = logging.getLogger("fer_features")

EPILOG = """\b
Examples:
  fer-predict runs/0001-dense face.png
  fer-predict runs/0001-dense faces/ --csv > answers.csv
  fer-predict runs/0001-dense 'session-*/*.jpg' --min-probability 0.8
  fer-predict runs/0001-dense group-photo.jpg --detect --json
  fer-predict runs/0001-dense fer2013.csv
  curl -s https://example.org/face.jpg | fer-predict runs/0001-dense -

Images that cannot be read are named on standard error, the others go on; the status is 1 then.
"""


@click.command(cls=Command, context_settings=SETTINGS, epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|FOLDER|TABLE|-...")
@click.option(
    "--detect",
    is_flag=True,
    help="Find the faces in photographs first: a line a face, with its box. Needs "
    "fer-features[detect].",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print a table with every class's probability.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, likewise.")
@click.option(
    "--no-calibration",
    is_flag=True,
    help="Leave the head's probabilities as they are. [default: divided by the temperature that "
    "the run's validation images ask for, which changes no answer, only how sure it is]",
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="P",
    help="Answer 'unsure' below this probability. [default: 0]",
)
@click.option(
    "--engine",
    type=Name(("auto", "tensorflow", "openvino")),
    default="auto",
    show_default=True,
    help="What executes the network; auto takes the fastest one installed.",
)
@network_options
@messages_options
def main(
    run: Path,
    images: tuple[str, ...],
    detect: bool,
    as_csv: bool,
    as_json: bool,
    no_calibration: bool,
    min_probability: float,
    engine: str,
    backbone: Path | None,
    weights: Path | None,
    quiet: bool,
) -> int:
    """Say which class each IMAGE is of, by the classifier of RUN, and how probable that is.

    An image is read as the run's own were: of any kind and size, its middle square, in grey or in
    colour. A folder is read with all below it; a TABLE is a CSV, Parquet or NumPy file of pixels;
    - is an image on standard input.
    """
    show_messages(quiet)
    if as_csv and as_json:
        raise click.UsageError("--csv and --json: expected one of the two.")
    if sys.__stdout__ is None:
        raise OptionError(
            "standard output is closed, expected somewhere to write answers to. Open it, or name "
            "a file: > answers.txt."
        )
    from tqdm import tqdm

    from fer_features.experiment.run_document import TEMPERATURES
    from fer_features.prediction.classifier import Classifier

    main.stopped = "What is finished is on standard output."
    given = [each for text in images for each in _expanded(text)]
    classifier = Classifier.load(
        run, backbone=backbone, weights=weights, engine=engine, calibrate=not no_calibration
    )
    # A bar is for eyes, and would stand among answers that are shown on the same terminal.
    answers = classifier.stream(
        given,
        detect=detect,
        min_probability=min_probability,
        progress=not quiet and sys.stderr.isatty() and not sys.stdout.isatty(),
    )
    if as_csv:
        click.echo(_csv_line(classifier.columns(detect)))
    bad = 0
    unsaid = classifier.temperature != 1
    for answer in answers:
        if answer.finding:
            bad += answer.is_bad
            tqdm.write(f"{answer.source}: {answer.finding}", file=sys.stderr)
            continue
        if unsaid:
            log.info(
                "probabilities are calibrated: temperature %.2f, fitted on the run's validation "
                "images; its report's scores are of uncalibrated ones",
                classifier.temperature,
            )
            if classifier.temperature == max(TEMPERATURES):
                log.warning(
                    "The head told nothing of the validation images: its probabilities are near "
                    "equal, and which class is first means little."
                )
            unsaid = False
        row = classifier.row(answer, detect)
        if as_json:
            click.echo(json.dumps(row, ensure_ascii=False))
        elif as_csv:
            click.echo(_csv_line(list(row.values())))
        else:
            click.echo(_line(answer))
    return int(bad > 0)


def _line(answer: "Answer") -> str:
    box = [",".join(map(str, answer.box))] if answer.box else []
    return "\t".join([answer.source, *box, str(answer.predicted), f"{answer.probability:.3f}"])


def _csv_line(values: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def _expanded(text: str) -> list[Any]:
    """Return what an argument names: standard input, a path, or the paths of a pattern."""
    if text == "-":
        return [sys.stdin.buffer]
    if not glob.has_magic(text) or Path(text).exists():
        return [text]
    return sorted(glob.glob(text, recursive=True)) or [text]  # noqa: PTH207  (** and absolute)


if __name__ == "__main__":
    main()
