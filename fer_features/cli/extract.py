"""``fer-extract``: one pass of the frozen network over a source."""

from pathlib import Path

import click

from fer_features.cli.command import SETTINGS, Command, Name, messages_options, show_messages

EPILOG = """\b
Examples:
  fer-extract fer2013.csv                      every image of FER2013, once
  fer-extract train/ -o cache/mine.h5          a folder of emotion-named folders
  fer-extract fer2013.csv --limit 500 --weights random     a quick try
  fer-extract cache/mine.h5 --verify           check every bit of a store

Stopped at any moment, the same call goes on where it stopped.
"""


@click.command(cls=Command, context_settings=SETTINGS, epilog=EPILOG)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="STORE.h5",
    help="Where the embeddings go. [default: cache/NAME-FINGERPRINT8.h5]",
)
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|random[:SEED]|FILE",
    help="The network's weights: ImageNet's, downloaded by Keras; seeded random ones, to try "
    "things out; or a file that Keras wrote (..._notop.h5, .weights.h5).",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Take N rows, evenly spaced over the source.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out bad rows, and count them.")
@click.option("--overwrite", is_flag=True, help="Start anew instead of using what is there.")
@click.option("--repair", is_flag=True, help="Compute the damaged rows of a store again.")
@click.option(
    "--engine",
    type=Name(("auto", "tensorflow", "openvino")),
    default="auto",
    show_default=True,
    help="What executes the network; auto takes the fastest one installed.",
)
@click.option(
    "--precision",
    type=Name(("float32", "int8")),
    default="float32",
    show_default=True,
    help="int8: faster and less exact, calibrated on the pass's images; needs OpenVINO.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    metavar="N",
    help="Images computed, and written, at a time.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes on this machine that share the work.",
)
@click.option("--dask", metavar="ADDRESS", help="Let a Dask cluster do it: tcp://host:8786.")
@click.option("--verify", is_flag=True, help="Check SOURCE, a store; exit 1 if it is damaged.")
@messages_options
def main(
    source: Path,
    output: Path | None,
    weights: str,
    limit: int | None,
    skip_bad: bool,
    overwrite: bool,
    repair: bool,
    engine: str,
    precision: str,
    batch_size: int,
    workers: int,
    dask: str | None,
    verify: bool,
    quiet: bool,
) -> int:
    """Embed every distinct image of SOURCE once and keep the embeddings in one HDF5 file.

    SOURCE is fer2013.csv (or icml_face_data.csv, train.csv, test.csv; also packed as .gz, .xz or
    .zip), or a folder of images in emotion-named folders.
    """
    show_messages(quiet)
    if verify:
        return _verify(source)
    if dask and workers > 1:
        raise click.UsageError("--workers and --dask: expected one of the two.")
    from fer_features.embedding.backbone import BackboneSpec
    from fer_features.embedding.extraction import extract

    store = extract(
        source,
        output,
        backbone=BackboneSpec(weights=weights, precision=precision),
        engine=engine,
        batch_size=batch_size,
        workers=workers,
        dask=dask,
        limit=limit,
        skip_bad=skip_bad,
        overwrite=overwrite,
        repair=repair,
        progress=not quiet,
    )
    skipped = store.dataset["skipped"]
    click.echo(
        f"{store.path}: {len(store):,} embeddings of {store.dimension:,}"
        + (f", {skipped:,} bad rows left out" if skipped else "")
    )
    return 0


def _verify(path: Path) -> int:
    from fer_features.embedding.store import Store, name_rows

    store = Store(path)
    damaged = store.verify()
    if damaged:
        sources = ", ".join(store.source[damaged[:5]])
        click.echo(
            f"Error: {path}: {name_rows(damaged)} damaged (source: {sources}). "
            f"Mend it with fer-extract SOURCE -o {path} --repair.",
            err=True,
        )
        return 1
    click.echo(f"{path}: {len(store):,} rows intact")
    return 0


if __name__ == "__main__":
    main()
