"""The drawn faces: what they are, that they repeat, and the command that writes them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_features.errors import SourceError
from fer_features.faces.dataset import FaceDataset
from fer_features.faces.emotions import EMOTIONS, NONE
from fer_features.faces.reading import read_faces
from fer_features.sample.__main__ import main
from fer_features.sample.faces import draw_faces, write_csv

HAPPINESS = EMOTIONS.index("happiness")


@pytest.fixture(scope="module")
def drawn() -> FaceDataset:
    return draw_faces(1050, seed=0)


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    out, err = capsys.readouterr()
    return exit_.value.code or 0, out, err


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others():
    first, again, other = draw_faces(30, 5), draw_faces(30, 5), draw_faces(30, 6)
    assert first.pixels.tobytes() == again.pixels.tobytes()
    assert first.content_sha256 == again.content_sha256 != other.content_sha256
    assert first.sha256 is None
    np.testing.assert_array_equal(first.emotion, again.emotion)
    np.testing.assert_array_equal(first.usage, again.usage)


def test_every_emotion_and_usage_occurs_in_its_share(drawn):
    assert np.bincount(drawn.emotion).tolist() == [147, 63, 147, 314, 147, 116, 116]
    assert np.bincount(drawn.usage).tolist() == [840, 105, 105]


@pytest.mark.parametrize("n", [7, 10, 24, 25, 26, 51, 100])
def test_small_samples_have_every_emotion(n):
    faces = draw_faces(n)
    assert len(faces) == n
    assert set(faces.emotion) == set(range(7))


def test_fewer_faces_than_emotions_are_refused():
    with pytest.raises(SourceError, match=r"^6 faces: expected at least 7"):
        draw_faces(6)


def test_eight_faces_are_copies_and_one_of_them_contradicts_its_original(drawn):
    _, first, count = np.unique(drawn.digest, axis=0, return_index=True, return_counts=True)
    assert sorted(count[count > 1]) == [2] * 8
    labels = []
    for row in first[count > 1]:
        copies = (drawn.digest == drawn.digest[row]).all(axis=1)
        labels.append(sorted({EMOTIONS[label] for label in drawn.emotion[copies]}))
    assert sorted(labels, key=len)[-1] == ["fear", "happiness"]
    assert sum(len(names) == 2 for names in labels) == 1


def test_faces_vary_and_use_the_range_of_grey(drawn):
    assert drawn.pixels.std(axis=(1, 2)).min() > 3
    assert drawn.pixels.min() == 0
    assert drawn.pixels.max() == 255
    assert drawn.pixels.astype(float).std(axis=0).min() > 20


def test_telling_happiness_from_pixels_is_neither_trivial_nor_hopeless(drawn):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    wanted = np.isin(drawn.emotion, [EMOTIONS.index(e) for e in ("anger", "fear", "sadness")])
    wanted |= drawn.emotion == HAPPINESS
    halved = drawn.pixels[wanted].reshape(-1, 24, 2, 24, 2).mean(axis=(2, 4))  # for speed
    X = halved.reshape(len(halved), -1)
    y = drawn.emotion[wanted] == HAPPINESS
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    accuracy = cross_val_score(head, X, y, cv=3).mean()
    assert max(y.mean(), 1 - y.mean()) + 0.03 < accuracy < 0.85


def test_the_csv_reads_back_as_it_was_drawn(tmp_path, drawn):
    write_csv(drawn, tmp_path / "faces.csv")
    back = read_faces(tmp_path / "faces.csv")
    for field in ("pixels", "emotion", "usage", "digest", "source"):
        np.testing.assert_array_equal(getattr(back, field), getattr(drawn, field))
    text = (tmp_path / "faces.csv").read_text()
    assert text.startswith("emotion,pixels,Usage\n")
    assert text.count("\n") == 1051
    assert [path.name for path in tmp_path.iterdir()] == ["faces.csv"]


def unlabelled(faces: FaceDataset, rows: slice) -> FaceDataset:
    emotion = faces.emotion.copy()
    emotion[rows] = NONE
    usage = np.full_like(faces.usage, NONE)
    return FaceDataset("x", "arrays", faces.pixels, emotion, usage, faces.source)


def test_columns_without_a_value_are_left_out(tmp_path):
    faces = unlabelled(draw_faces(7), slice(None))
    write_csv(faces, tmp_path / "faces.csv")
    assert (tmp_path / "faces.csv").read_text().startswith("pixels\n")
    assert set(read_faces(tmp_path / "faces.csv").emotion) == {NONE}


def test_labels_on_some_rows_only_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"x: 3 of 7 rows have no emotion"):
        write_csv(unlabelled(draw_faces(7), slice(3)), tmp_path / "faces.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(24, 96), (48, 16, 3)])
def test_faces_of_another_form_have_no_csv(tmp_path, shape):
    drawn = draw_faces(7)
    pixels = drawn.pixels.reshape(-1, *shape)[:7]
    with pytest.raises(
        SourceError, match=r"^sample: (24x96 grey|48x16 colour) images, expected 48x48 g"
    ):
        write_csv(replace(drawn, pixels=pixels), tmp_path / "faces.csv")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(SourceError, match=r"missing/faces.csv: cannot be written \(No such file"):
        write_csv(draw_faces(7), tmp_path / "missing" / "faces.csv")


def test_a_folder_in_the_place_of_the_file_is_kept(tmp_path):
    (tmp_path / "faces.csv").mkdir()
    with pytest.raises(SourceError, match=r"faces.csv: cannot be written"):
        write_csv(draw_faces(7), tmp_path / "faces.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["faces.csv"]


def test_the_command_says_in_one_line_what_it_wrote(tmp_path, capsys):
    path = tmp_path / "faces.csv"
    code, out, err = run(str(path), "--faces", "20", "--seed", "3", capsys=capsys)
    assert (code, err) == (0, "")
    assert out.startswith(f"{path}: 20 drawn faces of 48x48 (seed 3): anger 3, disgust 1,")
    assert out.count("\n") == 1
    assert len(read_faces(path)) == 20


def test_the_command_keeps_a_file_with_other_content(tmp_path, capsys):
    path = tmp_path / "faces.csv"
    path.write_text("mine")
    code, out, err = run(str(path), "--faces", "20", capsys=capsys)
    assert (code, out) == (2, "")
    assert err == (
        f"Error: {path}: exists with other content. Choose another name or pass --overwrite.\n"
    )
    assert path.read_text() == "mine"
    assert run(str(path), "--faces", "20", "--overwrite", capsys=capsys)[0] == 0
    assert len(read_faces(path)) == 20


def test_the_command_accepts_the_same_file_a_second_time(tmp_path, capsys):
    path = tmp_path / "faces.csv"
    run(str(path), "--faces", "20", capsys=capsys)
    before = path.stat().st_mtime_ns
    code, out, _ = run(str(path), "--faces", "20", capsys=capsys)
    assert code == 0
    assert out == f"{path}: holds these 20 drawn faces (seed 0) already.\n"
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--faces", "3"], "3 faces: expected at least 7, one for each emotion."),
        (["--faces", "many"], "Invalid value for '--faces': 'many' is not a valid"),
        (["--seed", "-1"], "--seed -1: expected a whole number, 0 or more."),
        (["--sed", "1"], "--sed"),
    ],
)
def test_a_bad_option_is_one_line_and_nothing_is_written(tmp_path, capsys, options, message):
    code, out, err = run(str(tmp_path / "faces.csv"), *options, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_command_without_a_file_name_asks_for_one(capsys):
    assert run(capsys=capsys) == (2, "", "Error: Missing argument 'FACES.csv'.\n")


def test_the_module_runs_and_its_help_teaches():
    done = subprocess.run(
        [sys.executable, "-m", "fer_features.sample", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "Draw cartoon faces" in done.stdout
    assert "fer-extract faces.csv" in done.stdout
    assert done.stderr == ""
