"""``fer-fit-head``: one head on the embeddings of a store."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from fer_features.cli.command import (
    SETTINGS,
    TASK_OPTIONS,
    Command,
    Name,
    make_task,
    messages_options,
    show_messages,
    show_notices,
    task_options,
)

EPILOG = """\b
Examples:
  fer-fit-head                                 the dense head on the one store in cache/
  fer-fit-head cache/mine.h5 --head logistic   the baseline on a store of yours
  fer-fit-head --features block10_add+block14_add --standardize
  fer-fit-head --hidden 256 --dropout 0.3 --seed 1
  fer-fit-head --class happy=happiness --class upset=anger,fear,sadness --per-class min
  fer-fit-head --labels fer2013new.csv --min-agreement 0.5    FER+'s labels, where half agree
  fer-fit-head --all-emotions --group-by '(S[0-9]+)_'         no person in two splits
"""


class _Units(click.ParamType):
    name = "N,N"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        parts = str(value).split(",")
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r}, expected units such as 128,64.", param, ctx)
        return tuple(map(int, parts))


class _Strength(click.ParamType):
    name = "auto|NUMBER"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return value if value == "auto" else float(value)
        except ValueError:
            self.fail(f"{value!r}, expected auto or a number.", param, ctx)


@click.command(cls=Command, context_settings=SETTINGS, epilog=EPILOG)
@click.argument("store", type=click.Path(path_type=Path), required=False)
@click.option(
    "--features",
    default="final",
    show_default=True,
    metavar="final|LAYER+LAYER",
    help="What the head is given of each image: the network's final output, an inner layer that "
    "the store keeps, or several joined by +.",
)
@click.option(
    "--head",
    type=Name(("dense", "logistic")),
    default="dense",
    show_default=True,
    help="dense: relu layers with L2 and dropout, in Keras. logistic: the baseline.",
)
@click.option(
    "--hidden", type=_Units(), metavar="N,N", help="dense: units a hidden layer. [default: 128,64]"
)
@click.option("--l2", type=float, help="dense: weight of L2 on each kernel. [default: 0.001]")
@click.option("--dropout", type=float, help="dense: after the first layer. [default: 0.5]")
@click.option("--learning-rate", type=float, help="dense: Adam's. [default: 0.001]")
@click.option("--batch-size", type=int, help="dense: images a step. [default: 128]")
@click.option("--epochs", type=int, help="dense: at most. [default: 50]")
@click.option(
    "--patience", type=int, help="dense: epochs without improvement to wait. [default: 10]"
)
@click.option(
    "--standardize",
    is_flag=True,
    default=None,
    help="dense: scale each feature first; embeddings of random weights need it.",
)
@click.option(
    "--C",
    "C",
    type=_Strength(),
    metavar="auto|NUMBER",
    help="logistic: inverse of the regularisation; auto chooses on validation. [default: auto]",
)
@click.option(
    "--class-weight",
    type=Name(("none", "balanced")),
    help="Weights of the classes in the loss; balanced: a rare one's images count for more. "
    "[default: none]",
)
@task_options
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the training.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run's folder, a new one. [default: runs/NNNN-HEAD]",
)
@messages_options
def main(
    store: Path | None,
    features: str,
    head: str,
    seed: int,
    output: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Train a head on the embeddings of STORE and score it on validation and test.

    STORE is what fer-extract wrote; it may be left out while cache/ holds one store. The run's
    folder gets metrics.json, predictions.csv, head.keras, a report and its figures.
    """
    show_messages(quiet)
    task = make_task(**{name: options.pop(name) for name in TASK_OPTIONS})
    given = {name: value for name, value in options.items() if value not in (None, "none")}
    from fer_features.experiment.heads import HEADS

    unfitted = HEADS[head](seed=seed)
    strange = [name for name in given if name not in unfitted.get_params()]
    if strange:
        flag = "--" + strange[0].replace("_", "-")
        other = "logistic" if head == "dense" else "dense"
        raise click.UsageError(f"{flag}: the {head} head has none. Pass --head {other}.")
    unfitted.set_params(**given).check_parameters()

    from fer_features.embedding.store import find_store
    from fer_features.experiment.evaluation import fit_and_evaluate
    from fer_features.experiment.run_folder import check_free, next_folder
    from fer_features.report.page import write_report

    check_free(output or next_folder(head))
    main.stopped = "Nothing was written."
    data = task.select(find_store(store), features)
    result = fit_and_evaluate(unfitted, data, progress=not quiet)
    folder = result.save(output)
    report = write_report(result, folder, command=shlex.join(["fer-fit-head", *sys.argv[1:]]))
    show_notices(result)
    click.echo(_table(result))
    click.echo(f"Report: {report}")
    return 0


def _table(result: Any) -> str:
    names = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss")
    lines = [f"{'':10}" + "".join(f"{name:>10}" for name in names)]
    for split in ("validation", "test"):
        scores = result.scores[split]
        lines.append(f"{split:10}" + "".join(f"{scores[name]:10.4f}" for name in names))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
