"""``fer-fit-head``: one head on the embeddings of a store."""

import itertools
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from fer_features.cli.command import (
    SETTINGS,
    TASK_OPTIONS,
    Command,
    make_task,
    messages_options,
    show_messages,
    show_notices,
    task_options,
)
from fer_features.cli.heads import make_head, parse_value

EPILOG = """\b
Examples:
  fer-fit-head                                 the dense head on the one store in cache/
  fer-fit-head cache/mine.h5 --head logistic   the baseline on a store of yours
  fer-fit-head --features block10_add+block14_add --standardize
  fer-fit-head --hidden 256x64 --dropout 0.3 --seed 1
  fer-fit-head --head sklearn.neighbors.KNeighborsClassifier --n-neighbors 15
  fer-fit-head --class happy=happiness --class upset=anger,fear,sadness --per-class min
  fer-fit-head --labels fer2013new.csv --min-agreement 0.5    FER+'s labels, where half agree
  fer-fit-head --all-emotions --group-by '(S[0-9]+)_'         no person in two splits
"""


log = logging.getLogger("fer_features")


class _FitHead(Command):
    """The command, with options for the parameters of the classifier that ``--head`` names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = [b for a, b in itertools.pairwise(args) if a == "--head"]
        named += [each.partition("=")[2] for each in args if each.startswith("--head=")]
        ctx.meta["extra"] = []
        if named and "." in named[-1] and not {"-h", "--help", "--version"} & set(args):
            ctx.meta["extra"] = self._options_of(make_head(named[-1])[1])
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get("extra", [])]

    def _options_of(self, head: Any) -> list[click.Parameter]:
        from fer_features.experiment.fitting import seed_parameters

        taken = {each.name for each in self.params} | set(seed_parameters(head))
        return [
            click.Option([f"--{name.replace('_', '-')}", name])
            for name in head.get_params()
            if name not in taken
        ]


@click.command(cls=_FitHead, context_settings=SETTINGS, epilog=EPILOG)
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
    default="dense",
    show_default=True,
    metavar="dense|logistic|MODULE.CLASS",
    help="dense: relu layers with L2 and dropout. logistic: the baseline. Or any scikit-learn "
    "classifier that says probabilities, such as sklearn.neighbors.KNeighborsClassifier; its "
    "parameters are options then: --n-estimators 300.",
)
@click.option(
    "--hidden",
    metavar="NxN",
    help="dense: units of each hidden layer, or none. [default: 128x64]",
)
@click.option("--l2", metavar="NUMBER", help="dense: weight of L2. [default: 0.001]")
@click.option("--dropout", metavar="NUMBER", help="dense: after the first layer. [default: 0.5]")
@click.option("--learning-rate", metavar="NUMBER", help="dense: Adam's. [default: 0.001]")
@click.option("--batch-size", metavar="N", help="dense: images a step. [default: 128]")
@click.option("--epochs", metavar="N", help="dense: at most. [default: 50]")
@click.option(
    "--patience", metavar="N", help="dense: epochs without improvement to wait. [default: 10]"
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
    metavar="auto|NUMBER",
    help="logistic: inverse of the regularisation; auto chooses on validation. [default: auto]",
)
@click.option(
    "--class-weight",
    metavar="none|balanced",
    help="Weights of the classes in the loss; balanced: a rare one's images count for more. "
    "[default: none]",
)
@task_options
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the training.")
@click.option(
    "--test",
    is_flag=True,
    help="Score the test images too: once, when nothing is left to be chosen.",
)
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
    test: bool,
    output: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Train a head on the embeddings of STORE and score it on validation.

    STORE is what fer-extract wrote; it may be left out while cache/ holds one store. The run's
    folder gets metrics.json, predictions.csv, the fitted head, and a report with its figures.
    """
    show_messages(quiet)
    task = make_task(**{name: options.pop(name) for name in TASK_OPTIONS})
    label, default = make_head(head)
    given = {name: value for name, value in options.items() if value is not None}
    strange = [name for name in given if name not in default.get_params()]
    if strange:
        flag = "--" + strange[0].replace("_", "-")
        other = {"dense": "logistic", "logistic": "dense"}.get(label, "dense")
        raise click.UsageError(f"{flag}: the {label} head has none. Pass --head {other}.")

    from fer_features.experiment.fitting import check_classifier, kept_file, seeded

    values = {name: parse_value(default, name, text) for name, text in given.items()}
    unfitted = seeded(default.set_params(**values), seed)
    check_classifier(unfitted, label)

    from fer_features.embedding.store import find_store
    from fer_features.experiment.result import fit_and_evaluate
    from fer_features.experiment.run_folder import check_free, next_folder

    check_free(output or next_folder(label))
    main.stopped = "Nothing was written."
    data = task.select(find_store(store), features)
    result = fit_and_evaluate(unfitted, data, test=test, seed=seed, progress=not quiet)
    folder = result.save(output)
    from fer_features.report.page import write_report

    command = shlex.join(["fer-fit-head", *sys.argv[1:]])
    report = write_report(result, folder, command=command)
    is_kept = kept_file(folder) is not None
    if not is_kept:
        log.warning(
            "The fitted %s is not kept, as reading it again would mean to trust its file: "
            "fer-predict cannot ask it.",
            label,
        )
    answers = show_notices(report)
    click.echo(_table(result))
    for answer in answers:
        click.echo(answer)
    click.echo(f"Report: {report}")
    if not test:
        later = f"fer-compare {shlex.quote(str(folder))}"
        if not is_kept:
            later = "the same call with --test" + " and another -o" * (output is not None)
        log.info("The test images are not scored. Once you have chosen: %s", later)
    return 0


def _table(result: Any) -> str:
    names = (
        "accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "log_loss"
    )  # fmt: skip
    text: str = result.to_frame()[list(names)].to_string(float_format="{:.4f}".format, na_rep="-")
    return text


if __name__ == "__main__":
    main()
