"""``python -m fer_features.sample FACES.csv``: write drawn faces as a CSV file."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from fer_features.errors import FerFeaturesError, SourceError
from fer_features.faces.dataset import SIDE
from fer_features.faces.emotions import EMOTIONS
from fer_features.sample.faces import csv_bytes, draw_faces, write_csv


@click.command()
@click.argument("faces_csv", metavar="FACES.csv", type=click.Path(path_type=Path))
@click.option("--faces", default=1050, show_default=True, help="How many faces to draw.")
@click.option("--seed", default=0, show_default=True, help="The same seed draws the same faces.")
@click.option("--overwrite", is_flag=True, help="Replace FACES.csv if it exists.")
def sample(faces_csv: Path, faces: int, seed: int, overwrite: bool) -> None:
    """Draw cartoon faces, 48x48 and grey, and write them in the form of fer2013.csv.

    They stand in for photographs where there are none: in the demo, in tests, while trying the
    commands out. All seven emotions occur, in about FER2013's shares; scores on them say nothing
    about scores on photographs.

    \b
    Example:
      python -m fer_features.sample faces.csv
      fer-extract faces.csv --weights random -o faces.h5
    """
    if seed < 0:
        raise SourceError(f"--seed {seed}: expected a whole number, 0 or more.")
    drawn = draw_faces(faces, seed)
    if faces_csv.exists() and not overwrite:
        if faces_csv.is_file() and faces_csv.read_bytes() == csv_bytes(drawn):
            click.echo(f"{faces_csv}: holds these {faces} drawn faces (seed {seed}) already.")
            return
        raise SourceError(
            f"{faces_csv}: exists with other content. Choose another name or pass --overwrite."
        )
    write_csv(drawn, faces_csv)
    counts = ", ".join(
        f"{EMOTIONS[i]} {count}" for i, count in enumerate(np.bincount(drawn.emotion))
    )
    click.echo(f"{faces_csv}: {faces} drawn faces of {SIDE}x{SIDE} (seed {seed}): {counts}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; what the user can mend becomes one line and exit status 2."""
    try:
        name = "python -m fer_features.sample"
        status = sample.main(arguments, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        status = 2
    except FerFeaturesError as error:
        click.echo(f"Error: {error}", err=True)
        status = 2
    except click.Abort:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
