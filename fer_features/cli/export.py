"""``fer-export``: a run's classifier as one file, for use without this package."""

from pathlib import Path

import click

from fer_features.cli.command import (
    SETTINGS,
    Command,
    messages_options,
    network_options,
    show_messages,
)

EPILOG = """\b
Examples:
  fer-export runs/0001-dense -o smile.onnx       for onnxruntime: fer-features[onnx]
  fer-export runs/0001-dense -o smile.xml        for OpenVINO, with smile.bin beside it
  fer-export runs/0001-dense -o smile.tflite     for LiteRT, on phones: fer-features[litert]
  fer-export runs/0001-dense -o smile.keras      for Keras

The file takes uint8 pixels of the run's image form, and says the probability of each class.
"""


@click.command(cls=Command, context_settings=SETTINGS, epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The file; its suffix says for which runtime: .keras, .onnx, .xml or .tflite.",
)
@click.option(
    "--no-calibration",
    is_flag=True,
    help="Leave the head's probabilities as they are. [default: calibrated by the run's "
    "temperature]",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@network_options
@messages_options
def main(
    run: Path,
    output: Path,
    no_calibration: bool,
    overwrite: bool,
    backbone: Path | None,
    weights: Path | None,
    quiet: bool,
) -> None:
    """Write the backbone, the head and the temperature of RUN as one model.

    The file is loaded by its own runtime, where that is installed, and compared with the run on
    drawn faces.
    """
    show_messages(quiet)
    main.stopped = "No file was written."
    from fer_features.prediction.classifier import Classifier

    classifier = Classifier.load(
        run, backbone=backbone, weights=weights, calibrate=not no_calibration
    )
    difference = classifier.export(output, overwrite=overwrite)
    compared = (
        "not compared with the run: its runtime is not installed"
        if difference is None
        else f"within {difference:.1g} of the run's probabilities on drawn faces"
    )
    temperature = classifier.temperature
    calibrated = f", calibrated by temperature {temperature:.2f}" * (temperature != 1)
    click.echo(
        f"{output}: {classifier.spec.name} in {classifier.spec.precision} and the "
        f"{classifier.label} head, to {', '.join(classifier.classes)}{calibrated}; {compared}"
    )


if __name__ == "__main__":
    main()
