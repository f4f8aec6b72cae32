"""``fer-extract``: one pass of a frozen network over a source."""

from pathlib import Path
from typing import Any

import click

from fer_features.cli.command import (
    SETTINGS,
    Command,
    Name,
    messages_options,
    parse_map,
    show_messages,
)

EPILOG = """\b
Examples:
  fer-extract fer2013.csv                      every image of FER2013, once
  fer-extract train/ -o cache/mine.h5          a folder of emotion-named folders
  fer-extract fer2013.csv --backbone EfficientNetV2B0
  fer-extract fer2013.csv --backbone mine.keras --layers block10_add,block14_add
  fer-extract photos/ --image-size 224 --color
  fer-extract raf-db/ --labels-as rafdb        folders 1 to 7, in RAF-DB's order
  fer-extract gesichter/ --map Freude=happiness --map Wut=anger --map Andere=none
  fer-extract fer2013.csv --limit 500 --weights random     a quick try
  fer-extract --backbones                      the networks to choose among
  fer-extract --backbones mine.keras           the layers of one worth keeping
  fer-extract cache/mine.h5 --verify           check every bit of a store

Stopped at any moment, the same call goes on where it stopped.
"""


class _Layers(click.ParamType):  # type: ignore[type-arg]
    name = "NAME,NAME"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) else value


@click.command(cls=Command, context_settings=SETTINGS, epilog=EPILOG)
@click.argument("source", type=click.Path(path_type=Path), required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="STORE.h5",
    help="Where the embeddings go. [default: cache/SOURCE-BACKBONE-FINGERPRINT8.h5]",
)
@click.option(
    "--backbone",
    default="InceptionResNetV2",
    show_default=True,
    metavar="NAME|FILE.keras",
    help="The network: one of Keras's applications (--backbones lists them), or a .keras file "
    "that takes RGB images from 0 to 255.",
)
@click.option(
    "--weights",
    metavar="imagenet|random[:SEED]|FILE",
    help="Weights of an application: ImageNet's, downloaded; seeded random ones, to try things "
    "out; or a file that Keras wrote (..._notop.h5, .weights.h5). [default: imagenet; a .keras "
    "file has its own]",
)
@click.option(
    "--input-size",
    type=click.IntRange(1),
    metavar="N",
    help="Pixels on a side that faces are resized to for the network. [default: 139 for "
    "InceptionResNetV2, else the size the network was published with]",
)
@click.option(
    "--layers",
    type=_Layers(),
    default=(),
    help="Inner layers to keep beside the final output, each averaged over space, in the same "
    "pass. A store that is there is given those it lacks; of int8 they are chosen at first.",
)
@click.option(
    "--image-size",
    type=int,
    metavar="N",
    help="Bring the images of a folder to NxN; of one that is not square the middle is taken. "
    "[default: 48]",
)
@click.option("--color", is_flag=True, help="Keep the colours of a folder's images.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Take N rows, evenly spaced over the source.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out bad rows, and say which.")
@click.option(
    "--map",
    multiple=True,
    metavar="WORD=EMOTION",
    help="What a word or number of the source means, such as Angst=fear, 7=contempt or other=none; "
    "'*' is every word not known otherwise. Several times.",
)
@click.option(
    "--labels-as",
    metavar="ORDER",
    help="Whose order numbers for emotions are in: fer2013, ferplus, affectnet, rafdb or ckplus. "
    "[default: 0 to 6 are FER2013's; others are an error]",
)
@click.option(
    "--group-by",
    metavar="REGEX",
    help="What in an image's path tells a person or a sequence, which no split will tear apart: "
    "the expression's first group, such as '^([^/]+)/'. A CSV file has a column 'group'.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a store even if images of it are lost, or another network made it; what fits "
    "is used.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Compute the damaged rows of a store again; it wants the options the store was made with.",
)
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
@click.option(
    "--verify",
    is_flag=True,
    help="Check a store, named in place of SOURCE; exit 1 if it is damaged.",
)
@click.option(
    "--backbones",
    is_flag=False,
    flag_value="",
    metavar="[NAME|FILE.keras]",
    help="List the networks of --backbone, or the layers of one that are worth keeping.",
)
@messages_options
def main(
    source: Path | None,
    output: Path | None,
    backbone: str,
    weights: str | None,
    input_size: int | None,
    layers: tuple[str, ...],
    precision: str,
    verify: bool,
    backbones: str | None,
    quiet: bool,
    **choices: Any,
) -> int:
    """Embed every distinct image of SOURCE once and keep the embeddings in one HDF5 file.

    SOURCE is fer2013.csv or another CSV file of pixels (also packed as .gz, .xz or .zip), a
    .parquet, .npz or .npy file, or a folder of images in emotion-named folders.
    """
    show_messages(quiet)
    if backbones is not None:
        click.echo(_layers_of(backbones, input_size) if backbones else _networks())
        return 0
    if source is None:
        raise click.UsageError("Missing argument 'SOURCE'.")
    if verify:
        return _verify(source)
    if choices["dask"] and choices["workers"] > 1:
        raise click.UsageError("--workers and --dask: expected one of the two.")
    from fer_features.embedding.backbone import BackboneSpec

    choices["map"] = parse_map(choices["map"])
    spec = BackboneSpec(backbone, weights, input_size, layers, precision)
    from fer_features.embedding.extraction import extract

    store = extract(source, output, backbone=spec, progress=not quiet, **choices)
    skipped = store.dataset["skipped"]
    click.echo(
        f"{store.path}: {len(store):,} rows, {len(store.image_digest):,} distinct images, "
        + ", ".join(f"{name} {d:,}" for name, d in store.dimensions.items())
        + (f", {skipped:,} bad {'row' if skipped == 1 else 'rows'} left out" if skipped else "")
    )
    return 0


def _networks() -> str:
    from fer_features.embedding.applications import APPLICATIONS

    lines = [f"{'network':20} {'dimension':>9} {'input size':>10} {'least':>5} {'parameters':>11}"]
    for name, row in APPLICATIONS.items():
        sizes = f"{row.input_size:10} {row.smallest:5}"
        lines.append(f"{name:20} {row.dimension:9,} {sizes} {row.parameters:11,}")
    return "\n".join([*lines, "", "Or a .keras file: float RGB images from 0 to 255 in."])


def _layers_of(backbone: str, input_size: int | None) -> str:
    from fer_features.embedding.backbone import BackboneSpec
    from fer_features.embedding.network import layers_worth_keeping

    # Of an application any weights will do: they are not loaded.
    weights = None if backbone.lower().endswith(".keras") else "random"
    spec = BackboneSpec(backbone, weights, input_size)
    found = layers_worth_keeping(spec)
    width = max([len(layer.name) for layer in found], default=5)
    lines = [f"{'layer':{width}} {'dimension':>9} {'map':>9} {'place':>6}"]
    for layer in found:
        size = "x".join(map(str, layer.size))
        lines.append(f"{layer.name:{width}} {layer.dimension:9,} {size:>9} {layer.place:6.0%}")
    said = f"{spec.name} at {spec.input_size} pixels; keep some with --layers NAME,NAME."
    if not found:
        said = (
            f"{spec.name}: no layer to name; it has none with a map, or holds them in a network "
            "within the network."
        )
    return "\n".join([*lines, "", said] if found else [said])


def _verify(path: Path) -> int:
    from fer_features.embedding.store import Store, name_rows
    from fer_features.faces.bad_rows import shown

    store = Store(path)
    damaged = store.verify()
    if damaged:
        sources = ", ".join(shown(str(source)) for source in store.source[damaged[:5]])
        click.echo(
            f"Error: {path}: {name_rows(damaged)} damaged (source: {sources}). "
            f"Mend it with {store.command('--repair')}.",
            err=True,
        )
        return 1
    click.echo(
        f"{path}: {len(store):,} rows and {len(store.image_digest):,} images intact "
        f"({store.options()})"
    )
    return 0


if __name__ == "__main__":
    main()
