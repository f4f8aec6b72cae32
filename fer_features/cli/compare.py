"""``fer-compare``: several networks, layers, heads, settings and seeds, one report."""

import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fer_features.cli.command import (
    SETTINGS,
    Command,
    Name,
    make_task,
    messages_options,
    show_messages,
    show_notices,
    task_options,
)
from fer_features.cli.heads import make_heads, parse_grid

EPILOG = """\b
Examples:
  fer-compare                                  both heads, three seeds, the one store in cache/
  fer-compare cache/mine.h5 --seeds 10 --workers 2 -o runs/ten
  fer-compare cache/one.h5 cache/other.h5      which network? stores of one source
  fer-compare --features final --features block10_add+block14_add          which layer?
  fer-compare --grid dense.l2=1e-4,1e-3 --grid dense.hidden=128x64,256 --heads dense
  fer-compare --heads dense,sklearn.neighbors.KNeighborsClassifier \\
              --grid KNeighborsClassifier.n_neighbors=5,15,50
  fer-compare --grid dense.class_weight=none,balanced --select balanced_accuracy
  fer-compare --sizes 500,1000,2000,5000       does more data help?
  fer-compare --all-emotions --split usage --labels fer2013new.csv       FER+'s eight emotions
  fer-compare --raters fer2013new.csv          beside what one of FER+'s raters scores
  fer-compare cache/mine.h5 --test-on cache/other-faces.h5     trained here, tested there
  fer-compare runs/0001-dense runs/0002-logistic     score their test images, and report

Stopped, the same call with the same -o goes on where it stopped.
"""


log = logging.getLogger("fer_features")


class _Sizes(click.ParamType):  # type: ignore[type-arg]
    name = "N,N"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r}, expected numbers of images such as 500,1000.", param, ctx)
        return tuple(map(int, parts))


@click.command(cls=Command, context_settings=SETTINGS, epilog=EPILOG)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[STORE... | RUN...]")
@click.option(
    "--features",
    multiple=True,
    default=["final"],
    show_default=True,
    metavar="final|LAYER+LAYER",
    help="What heads are given of each image: the network's final output, an inner layer that the "
    "store keeps, or several joined by +. Again for others; of each store those that it has.",
)
@click.option(
    "--heads",
    default="dense,logistic",
    show_default=True,
    metavar="NAME,NAME",
    help="Which heads to fit: dense, logistic, or any scikit-learn classifier that says "
    "probabilities, such as sklearn.neighbors.KNeighborsClassifier, by its class name then.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="Seeds of training: 0 to N-1.",
)
@click.option(
    "--grid",
    multiple=True,
    metavar="HEAD.PARAMETER=VALUE[,VALUE]",
    help="Values of a parameter to try, for each parameter one --grid; all combinations are "
    "fitted, and --select chooses on validation. Layers are joined by x: "
    "dense.hidden=128x64,256. logistic.C takes auto too; class_weight takes none and balanced.",
)
@click.option(
    "--select",
    default="log_loss",
    show_default=True,
    metavar="SCORE",
    help="The validation score that selects a setting of each head: log_loss, accuracy, "
    "balanced_accuracy, precision, recall, f1, roc_auc, average_precision, brier or ece.",
)
@click.option(
    "--sizes",
    type=_Sizes(),
    default=(),
    metavar="N,N",
    help="Also fit the selected settings to nested parts of N training images, for the curve of "
    "what more of them bring.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Fits at a time, each in a process of one thread; the results are the same.",
)
@click.option(
    "--test-on",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="Test on another data set: all its images of the task's emotions that the first does not "
    "have. Of the same network; again for each other network.",
)
@click.option(
    "--raters",
    metavar="FILE",
    help="FER+'s votes on the test images: score one rater beside the heads, and the heads by how "
    "much raters agree. The labels stay; votes given as --labels are used so, too.",
)
@click.option(
    "--faces",
    type=click.Path(path_type=Path),
    metavar="SOURCE",
    help="Show faces of this source in the report: some of each class, and the most confident "
    "mistakes. Without it a report holds no image of a person.",
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
    features: tuple[str, ...],
    heads: str,
    seeds: int,
    grid: tuple[str, ...],
    select: str,
    sizes: tuple[int, ...],
    workers: int,
    test_on: tuple[Path, ...],
    raters: str | None,
    faces: Path | None,
    output: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Fit heads under several settings and seeds on one task, and write a report.

    STORE is what fer-extract wrote; it may be left out while cache/ holds one store. Several, of
    one source by several networks, are compared image by image: the first one's rows are split.
    Validation selects a setting of each head on each network and layer, and that alone is scored
    on the test images. Given RUNs, the folders of runs or comparisons that exist, score the test
    images of runs that lack it, from the store that each names, and report on all.
    """
    show_messages(quiet)
    from fer_features.experiment.comparison_folder import Results
    from fer_features.experiment.run_folder import check_free, next_folder

    if any(path.is_dir() for path in paths):
        _refuse_options_of_fits()
        folder = output or next_folder("compare")
        check_free(folder)
        shown = _faces(faces)
        results = _read(paths)
    else:
        from fer_features.experiment.scores import SCORES

        task = make_task(**options)
        chosen = make_heads(heads)
        tried = parse_grid(grid, chosen)
        Name(SCORES).convert(select, _option("select"), click.get_current_context())
        from fer_features.embedding.store import Store, find_store
        from fer_features.experiment.comparison import compare, embeddings_of

        stores = [Store(path) for path in paths] or [find_store(None)]
        elsewhere = [Store(path) for path in test_on]
        data = embeddings_of(task, stores, features, test_on=elsewhere, raters=raters)
        shown = _faces(faces)
        folder = output or next_folder("compare")
        main.stopped = f"What is finished is kept; the same call with -o {folder} goes on with it."
        results = compare(
            data,
            chosen,
            grid=tried,
            seeds=range(seeds),
            sizes=sizes,
            select=select,
            out=folder,
            workers=workers,
            progress=not quiet,
        )
    assert isinstance(results, Results)
    from fer_features.report.page import write_report

    command = shlex.join(["fer-compare", *sys.argv[1:]])
    report = write_report(results, folder, faces=shown, command=command)
    answers = show_notices(report)
    click.echo(_table(results))
    for answer in answers:
        click.echo(answer)
    click.echo(f"Report: {report}")
    return 0


def _read(paths: tuple[Path, ...]) -> Any:
    """Read runs and comparisons, and score the test images of runs that lack it.

    Of a comparison they are scored for what it selected, and only for that.
    """
    from fer_features.experiment.comparison_folder import Results, is_comparison, load_results
    from fer_features.experiment.result import again, score_test
    from fer_features.report.page import command_of, write_report

    every = [(path, load_results(path)) for path in paths]
    unscored = [(path, read) for path, read in every if not is_comparison(path)]
    unscored = [(path, read) for path, read in unscored if "test" not in read[0].scores]
    for _, read in unscored:
        again(read[0])  # where one cannot be scored, none is
    for path, read in unscored:
        log.info("%s: scoring its test images, which was not done yet", path)
        read[:] = [score_test(read[0])]
        if (path / "report.html").is_file():
            write_report(read[0], path, command=command_of(path))
    found = [each for _, read in every for each in (*read, *read.failed)]
    selects = {read.select for _, read in every} - {None}
    return Results(found, select=selects.pop() if len(selects) == 1 else None)


def _table(results: Any) -> str:
    """Lay out the settings that were tried: validation and test, means over the fits."""
    import pandas as pd

    frame = results.settings()
    frame["selected"] = ["*" if chosen else "" for chosen in frame["selected"]]
    for name in ("setting", "failed", "selected"):
        if not frame[name].any():
            frame = frame.drop(columns=name)
    # The split once, above its scores.
    split = [name.partition(" ") if " " in name else ("", "", name) for name in frame.columns]
    frame.columns = pd.MultiIndex.from_tuples([(part, score) for part, _, score in split])
    text: str = frame.to_string(index=False, na_rep="-", float_format="{:.4f}".format)
    return text


def _option(name: str) -> click.Parameter:
    return next(each for each in main.params if each.name == name)


def _refuse_options_of_fits() -> None:
    """Refuse options that say how to fit where finished runs are given."""
    context = click.get_current_context()
    shared = {"paths", "faces", "output", "quiet"}
    for option in context.command.params:
        name = str(option.name)
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and option.expose_value and name not in shared:
            raise click.UsageError(
                f"{option.opts[0]}: given runs that exist, expected a store to fit to."
            )


def _faces(source: Path | None) -> Any:
    if source is None:
        return None
    from fer_features.faces.reading import read_faces

    # A store may have left bad rows out; matched by digest, none is needed here either.
    return read_faces(source, skip_bad=True)


if __name__ == "__main__":
    main()
