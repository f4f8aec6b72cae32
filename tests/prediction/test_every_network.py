"""Every network that is offered, in every format that it can be exported to."""

from pathlib import Path

import numpy as np
import pytest

from fer_features import BackboneSpec, DenseHead, Task, evaluate, extract
from fer_features.embedding.applications import APPLICATIONS
from fer_features.errors import BackboneError
from fer_features.prediction.classifier import Classifier
from fer_features.prediction.export import CLOSE, export, load_exported
from fer_features.sample.faces import draw_faces

SUFFIXES = (".keras", ".onnx", ".xml", ".tflite")

REFUSED = {(name, ".onnx") for name in APPLICATIONS if name.startswith("ConvNeXt")}
"""What docs/export.md lists as not to be exported."""


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_each_network_is_exported_to_each_format_or_refused_in_one_line(
    name: str, tmp_path: Path
) -> None:
    faces = draw_faces(40)
    spec = BackboneSpec(name, weights="random", input_size=APPLICATIONS[name].smallest)
    task = Task(
        {"up": ["happiness", "surprise", "neutral"], "down": ["anger", "fear", "sadness"]},
        per_class="min",
    )
    data = task.select(extract(faces, tmp_path / "store.h5", backbone=spec))
    # Not standardised: of random weights some numbers are all but constant, and a head that scales
    # those shows the engines' rounding, larger than any of the export's.
    head = DenseHead(hidden=(8,), epochs=1).fit(data.train.X, data.train.y)
    evaluate(head, data).save(tmp_path / "run")
    classifier = Classifier.load(tmp_path / "run")
    pixels = faces.pixels[:7]
    columns = [f"p_{each}" for each in classifier.classes]
    expected = classifier.predict_pixels(pixels)[columns].to_numpy()
    for suffix in SUFFIXES:
        path = tmp_path / f"model{suffix}"
        if (name, suffix) in REFUSED:
            with pytest.raises(BackboneError, match=r"grouped convolutions, which tf2onnx cannot"):
                export(classifier, path)
            assert not path.exists()
            continue
        export(classifier, path)
        run = load_exported(path)
        for count in (1, 7):
            found = run(pixels[:count])
            assert np.abs(found - expected[:count]).max() <= CLOSE, (suffix, count)
