"""The example runs where this package is not: with onnxruntime, NumPy and Pillow alone."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from support import TINY

from fer_features import FaceDataset, LogisticHead, Task, evaluate, extract
from fer_features.prediction.classifier import Classifier
from fer_features.prediction.export import export
from fer_features.sample.faces import draw_faces

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "use_the_export.py"
NEEDED = ("onnxruntime", "numpy", "pillow")
ABSENT = ("fer_features", "tensorflow", "keras", "openvino", "onnx", "pandas", "cv2", "click")
ORIENTATION, ON_ITS_SIDE = 0x0112, 6

# -I and -S leave the standard library alone on the path.
RUN = f"""
import importlib.util, runpy, sys
sys.path.append(sys.argv[1])
found = [name for name in {ABSENT!r} if importlib.util.find_spec(name)]
assert not found, found
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def requirements(names: tuple[str, ...]) -> Iterator[metadata.Distribution]:
    """Yield distributions and all that they require, each once."""
    waiting, done = list(names), set()
    while waiting:
        distribution = metadata.distribution(waiting.pop())
        if distribution.name in done:
            continue
        done.add(distribution.name)
        yield distribution
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds what the example needs, and nothing else that is installed."""
    folder = tmp_path_factory.mktemp("packages")
    for distribution in requirements(NEEDED):
        tops = {path.parts[0] for path in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            (folder / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return folder


def run_alone(packages: Path, *arguments: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", RUN, str(packages), str(EXAMPLE), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def bright_and_dark(size: int, color: bool) -> FaceDataset:
    """Return drawn faces of a form, labelled by what three random convolutions can tell apart."""
    faces = draw_faces(120)
    bright = faces.pixels.mean(axis=(1, 2)) > np.median(faces.pixels.mean(axis=(1, 2)))
    images = [Image.fromarray(each).convert("RGB" if color else "L") for each in faces.pixels]
    return FaceDataset(
        name="drawn",
        kind="arrays",
        pixels=np.stack([np.asarray(image.resize((size, size))) for image in images]),
        emotion=np.where(bright, 3, 4).astype(np.int8),
        usage=faces.usage,
        source=faces.source,
    )


def write_images(folder: Path) -> list[Path]:
    """Write drawn faces as people have them: other sizes, colours, not square, on their side."""
    folder.mkdir()
    drawn = [Image.fromarray(each) for each in draw_faces(9, seed=7).pixels]
    tinted = [
        Image.merge("RGB", (each, each.point(lambda v: v // 2), each.point(lambda v: 255 - v)))
        for each in drawn
    ]
    images = {
        **{f"grey{i}.png": drawn[i] for i in range(4)},
        "larger.png": drawn[4].resize((131, 131)),
        "colour.png": tinted[5],
        "wide.png": tinted[6].resize((310, 200)),
        "tall.jpg": tinted[7].resize((61, 97)),
        "palette.png": tinted[8].quantize(16),
    }
    for name, image in images.items():
        image.save(folder / name)
    exif = Image.Exif()
    exif[ORIENTATION] = ON_ITS_SIDE
    tinted[0].resize((90, 60)).save(folder / "turned.jpg", exif=exif)
    return [*(folder / name for name in images), folder / "turned.jpg"]


@pytest.mark.parametrize(("size", "color"), [(48, False), (60, True)], ids=["grey", "colour"])
def test_the_example_says_what_the_classifier_says_without_this_package(
    size: int, color: bool, packages: Path, tmp_path: Path
) -> None:
    store = extract(bright_and_dark(size, color), tmp_path / "store.h5", backbone=TINY)
    data = Task({"bright": ["happiness"], "dark": ["sadness"]}).select(store)
    head = LogisticHead(C=10.0).fit(data.train.X, data.train.y)
    evaluate(head, data).save(tmp_path / "run")
    classifier = Classifier.load(tmp_path / "run")
    export(classifier, tmp_path / "model.onnx")
    paths = write_images(tmp_path / "images")

    said = run_alone(packages, tmp_path / "model.onnx", *paths)

    assert said.returncode == 0, said.stderr
    lines = [line.split("\t") for line in said.stdout.splitlines()]
    expected = classifier.predict(paths)
    assert [line[0] for line in lines] == [str(path) for path in paths]
    assert [line[1] for line in lines] == expected["predicted"].tolist()
    assert set(expected["predicted"]) == {"bright", "dark"}
    found = [float(line[2]) for line in lines]
    np.testing.assert_allclose(found, expected["probability"], rtol=0, atol=1e-5)
    assert np.ptp(found) > 0.1  # no classifier that says one thing of everything


def test_the_page_on_exports_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    assert f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```" in page
    assert "](../examples/use_the_export.py)" in page
