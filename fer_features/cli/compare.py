"""``fer-compare``: several heads under several seeds, one report."""

from pathlib import Path
from typing import Any

import click

from fer_features.cli.command import (
    SETTINGS,
    Command,
    Name,
    make_task,
    messages_options,
    show_messages,
    task_options,
)

EPILOG = """\b
Examples:
  fer-compare                                  both heads, three seeds, the one store in cache/
  fer-compare cache/mine.h5 --seeds 10 -o runs/ten
  fer-compare runs/0001-dense runs/0002-logistic     one report on runs that exist

Stopped, the same call with the same -o goes on where it stopped.
"""


@click.command(cls=Command, context_settings=SETTINGS, epilog=EPILOG)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[STORE | RUN RUN...]")
@click.option(
    "--heads",
    default="dense,logistic",
    show_default=True,
    metavar="NAME,NAME",
    help="Which heads to fit.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="Seeds of training: 0 to N-1.",
)
@task_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The comparison's folder. [default: runs/NNNN-compare]",
)
@messages_options
def main(
    paths: tuple[Path, ...],
    heads: str,
    seeds: int,
    classes: tuple[str, ...],
    all_emotions: bool,
    per_class: str | None,
    split: str,
    split_seed: int,
    duplicates: str,
    output: Path | None,
    quiet: bool,
) -> int:
    """Fit both heads under several seeds on one task, and write a report.

    STORE is what fer-extract wrote; it may be left out while cache/ holds one store. Given the
    folders of runs or comparisons that exist, report on those; that needs no TensorFlow.
    """
    show_messages(quiet)
    from fer_features.experiment.run_folder import new_folder

    if len(paths) > 1 or (paths and paths[0].is_dir()):
        from fer_features.experiment.comparison import load_results

        results = [result for path in paths for result in load_results(path)]
        folder = new_folder(output, "compare")
    else:
        task = make_task(classes, all_emotions, per_class, split, split_seed, duplicates)
        chosen = _heads(heads)
        from fer_features.embedding.store import find_store
        from fer_features.experiment.comparison import compare

        data = task.select(find_store(paths[0] if paths else None))
        folder = output or new_folder(None, "compare")
        results = compare(data, chosen, seeds=range(seeds), out=folder, progress=not quiet)
    from fer_features.report.page import write_report

    click.echo(f"Report: {write_report(results, folder)}")
    return 0


def _heads(names: str) -> dict[str, Any]:
    from fer_features.experiment.heads import HEADS

    parse = Name(tuple(HEADS))
    return {name: HEADS[parse(name)]() for name in names.split(",")}


if __name__ == "__main__":
    main()
