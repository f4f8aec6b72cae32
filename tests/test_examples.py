"""The examples run, and say what they should; one of them where this package is not installed."""

import base64
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from support import TINY

from fer_features import FaceDataset, LogisticHead, Store, Task, evaluate, extract, load_results
from fer_features.prediction.classifier import Classifier
from fer_features.prediction.export import export
from fer_features.sample.faces import draw_faces

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
EXAMPLE = EXAMPLES / "use_the_export.py"
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


def run_example(name: str, folder: Path) -> str:
    """Return what a script prints; all that it writes is below the folder."""
    said = subprocess.run(
        [sys.executable, EXAMPLES / name, folder / "output"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said.returncode == 0, said.stderr
    assert [path.name for path in folder.iterdir()] == ["output"]
    return said.stdout


def test_a_network_of_ones_own_is_made_and_tells_drawn_expressions_apart(tmp_path: Path) -> None:
    said = run_example("own_backbone.py", tmp_path)
    found = re.search(r"validation accuracy (\d\.\d\d), chance 0\.50", said)
    assert found
    assert float(found[1]) >= 0.75
    store = Store(tmp_path / "output" / "gabor.h5")
    assert store.backbone["backbone"].startswith("sha256:")
    assert f"{store.dimensions['final']} numbers" in said


def test_classifiers_of_ones_own_are_compared_with_a_head(tmp_path: Path) -> None:
    said = run_example("own_classifier.py", tmp_path)
    lines = [re.split(r"\s{2,}| seed ", line)[0] for line in said.splitlines()]
    assert set(lines) == {"logistic", "neighbours", "nearest mean"}
    results = load_results(tmp_path / "output" / "comparison")
    tested = [result for result in results if "test" in result.scores]
    assert len(tested) == len(said.splitlines())
    assert len(results) == 1 + 2 * 3 + 2 * 3  # what may draw has each setting under two seeds
    for line, result in zip(said.splitlines(), tested, strict=True):
        assert line.endswith(f"test accuracy {result.scores['test']['accuracy']:.2f}")


def test_the_notebook_runs_from_faces_to_an_export(tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    where = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=300, resources=where)
    client.execute()

    outputs = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    shown = [output for each in outputs.values() for output in each]
    assert not [output for output in shown if output.get("name") == "stderr"], "no warnings"
    text = "".join(output.get("text", "") for output in shown)
    assert "420 rows by emotion: anger 59" in text
    assert "420 rows, 412 distinct images" in text
    assert (tmp_path / "runs" / "comparison" / "report.html").is_file()

    pictures = [
        output.data["image/png"] for output in shown if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2  # the faces, and a figure of the report
    for picture in pictures:
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
        assert seen.std() > 10  # something is drawn

    said = [output.data["text/plain"] for output in shown if "text/plain" in output.get("data", {})]
    assert "(420, 576)" in said
    difference, probabilities = said[-2], said[-1]
    assert float(difference) < 1e-5
    rows = np.array(re.findall(r"\[([\d.]+) *, +([\d.]+) *\]", probabilities), float)
    answers = next(each for each in said if "drawn as" in each)
    assert rows.shape == (8, 2)
    for row in rows:
        assert f"{row.max():.3f}".rstrip("0") in answers  # the file says what the classifier says


def test_the_page_on_exports_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    assert f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```" in page
    assert "](../examples/use_the_export.py)" in page
