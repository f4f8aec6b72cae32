"""What any release wrote is read by this one: tiny files of each format, made once and kept."""

import json
from pathlib import Path

import numpy as np
import pytest
from support import noise_faces

from fer_features import Store, load_head, load_results, write_report

ARCHIVES = Path(__file__).parent / "archives"


@pytest.mark.parametrize("version", ["v1"])
def test_a_store_of_each_format_version_is_read(version: str) -> None:
    store = Store(ARCHIVES / version / "store.h5")
    faces = noise_faces(12)
    assert store.verify() == []
    assert store.dimensions == {"final": 16, "two_relu": 16}
    assert store.backbone["backbone"] == "tiny"
    assert [each["images"] for each in store.provenance["passes"]] == [10]
    assert np.array_equal(store.digest, faces.digest)
    assert np.array_equal(store.emotion, faces.emotion)
    assert np.array_equal(store.usage, faces.usage)
    assert list(store.source) == [str(row) for row in range(1, 13)]
    embeddings = store.embeddings(features="final+two_relu")
    assert np.array_equal(embeddings[3], embeddings[7])
    # To five digits, as they were when the file was written.
    found = [round(float(v), 5) for v in embeddings[0, [0, 1, 2, 16, 17, 18]]]
    assert found == [0.12639, 0.01504, 0.0, 0.09291, 0.08527, 0.17677]


@pytest.mark.parametrize("version", ["v1"])
def test_a_comparison_and_the_runs_in_it_of_each_format_version_are_read(
    version: str, tmp_path: Path
) -> None:
    folder = ARCHIVES / version / "comparison"
    results = load_results(folder)
    assert [(r.label, r.params.get("l2"), sorted(r.scores)) for r in results] == [
        ("dense", 0.001, ["validation"]),
        ("dense", 0.1, ["test", "validation"]),
        ("logistic", None, ["test", "validation"]),
    ]
    assert [round(r.scores["validation"]["log_loss"], 5) for r in results] == [
        0.68423, 0.68413, 0.78526
    ]  # fmt: skip
    store = Store(ARCHIVES / version / "store.h5")
    rows = {str(source): row for row, source in enumerate(store.source)}
    summary = json.loads((folder / "results.json").read_text())
    for result, fit in zip(results, summary["fits"], strict=True):
        head = load_head(folder / fit["folder"] / "head.keras")
        assert (head.fingerprint_, head.features_) == (store.fingerprint, "final+two_relu")
        kept = result.predictions
        wanted = [rows[each] for each in kept["source"]]
        said = head.predict_proba(store.embeddings(wanted, result.features))
        assert np.allclose(said, kept[[f"p_{name}" for name in head.classes_]], rtol=1e-9)
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "3 settings were tried" in page
