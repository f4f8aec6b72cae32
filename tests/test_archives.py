"""What any release wrote is read by this one: tiny files of each format, made once and kept."""

from pathlib import Path

import numpy as np
import pytest
from support import noise_faces

from fer_features import Store

ARCHIVES = Path(__file__).parent / "archives"


@pytest.mark.parametrize("version", ["v1"])
def test_a_store_of_each_format_version_is_read(version: str) -> None:
    store = Store(ARCHIVES / version / "store.h5")
    faces = noise_faces(12)
    assert store.verify() == []
    assert store.dimension == 16
    assert store.backbone["architecture"] == "tiny"
    assert np.array_equal(store.digest, faces.digest)
    assert np.array_equal(store.emotion, faces.emotion)
    assert np.array_equal(store.usage, faces.usage)
    assert list(store.source) == [str(row) for row in range(1, 13)]
    embeddings = store.embeddings()
    assert np.array_equal(embeddings[3], embeddings[7])
    # To five digits, as they were when the file was written.
    assert [round(float(v), 5) for v in embeddings[0, :3]] == [0.179, 0.12583, 0.00916]
