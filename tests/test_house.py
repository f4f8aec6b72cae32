"""Data runs down, once: a room imports rooms above it, never below."""

import ast
import re
from pathlib import Path

import fer_features

ROOT = Path(fer_features.__file__).parent
ROOMS = ("faces", "sample", "embedding", "experiment", "prediction", "report", "cli")
EVERYWHERE = ("errors", "hdf5", "locking", "runtimes")


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Return the modules that a file imports."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def modules() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).glob("*.py"))]


def test_a_room_imports_only_rooms_above_it() -> None:
    for path in modules():
        room = path.parent.name
        for name in imports(path):
            match = re.match(r"fer_features\.(\w+)", name)
            if match and match[1] not in EVERYWHERE:
                assert ROOMS.index(match[1]) <= ROOMS.index(room), f"{path} imports {name}"


def test_experiment_knows_the_store_alone_and_report_knows_results_alone() -> None:
    for path in (ROOT / "experiment").glob("*.py"):
        for name in imports(path):
            if name.startswith("fer_features.embedding"):
                assert name == "fer_features.embedding.store", path
            assert name != "fer_features.faces.reading", path
            assert name != "h5py" or path.stem == "head_file", path  # no stores: a Keras file
    for path in (ROOT / "report").glob("*.py"):
        for name in imports(path):
            below = ("fer_features.embedding", "fer_features.prediction", "h5py")
            assert not name.startswith(below), f"{path} imports {name}"
    for path in (ROOT / "prediction").glob("*.py"):
        assert not any("fer_features.report" in name for name in imports(path)), path


def test_modules_import_each_other_one_way() -> None:
    """Following imports within the package never leads back."""
    graph = {}
    for path in modules():
        name = f"fer_features.{path.parent.name}.{path.stem}"
        graph[name] = {found for found in imports(path) if found.startswith("fer_features.")}
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in graph.get(name, ()):
                walk(other, (*above, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def test_slow_libraries_are_not_imported_at_the_top_of_a_module() -> None:
    for path in [*modules(), ROOT / "runtimes.py", ROOT / "errors.py"]:
        slow = {
            "tensorflow", "keras", "openvino", "nncf", "distributed", "cv2", "onnx",
            "onnxruntime", "tf2onnx", "ai_edge_litert",
        }  # fmt: skip
        assert not slow & {name.split(".")[0] for name in imports(path, top_level_only=True)}, path


def test_nothing_is_loaded_with_pickle() -> None:
    for path in modules():
        assert not {"pickle", "dill", "cloudpickle"} & imports(path), path
        assert "allow_pickle=True" not in path.read_text()
