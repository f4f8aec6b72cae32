"""A run's head, read without pandas or scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from support import TINY, noise_faces

from fer_features import LogisticHead, Store, Task, evaluate, extract
from fer_features.errors import RunError
from fer_features.experiment.head_file import read_head_file, write_head_file
from fer_features.experiment.run_head import load_run_head

TASK = Task(
    {"up": ["happiness", "surprise", "neutral"], "down": ["anger", "fear", "sadness"]},
    per_class="min",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("store") / "s.h5"
    return extract(noise_faces(60), path, backbone=TINY)


@pytest.mark.parametrize("head", [LogisticHead(C=0.1), GaussianNB()], ids=["own", "foreign"])
def test_it_answers_as_the_run_does_and_refuses_numbers_of_another_width(
    store: Store, tmp_path: Path, head: LogisticHead | GaussianNB
) -> None:
    data = TASK.select(store)
    result = evaluate(head.fit(data.train.X, data.train.y), data)
    kept = load_run_head(result.save(tmp_path / "run"))
    p, predicted = kept.answers(data.validation.X, 1.0)
    rows = result.predictions
    np.testing.assert_allclose(p, rows[["p_up", "p_down"]], atol=1e-12)
    assert predicted.tolist() == rows["predicted"].tolist()
    calibrated, same = kept.answers(data.validation.X, 2.0)
    expected = np.sqrt(p) / np.sqrt(p).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibrated, expected, atol=1e-12)
    assert same.tolist() == predicted.tolist()
    with pytest.raises(RunError, match=r"its head takes 16 numbers, the features final .* are 5"):
        kept.answers(data.validation.X[:, :5], 1.0)


def test_a_head_of_another_run_is_refused(store: Store, tmp_path: Path) -> None:
    data = TASK.select(store)
    run = evaluate(LogisticHead(C=0.1).fit(data.train.X, data.train.y), data).save(tmp_path / "run")
    layers, about = read_head_file(run / "head.keras")
    for name, value in {"fingerprint": "another", "features": "two_relu"}.items():
        said = {"classes": about["classes"], "fingerprint": None, "features": None, name: value}
        write_head_file(run / "head.keras", layers, **said)
        with pytest.raises(RunError, match=f"{name} {value}, expected .* as metrics.json has it"):
            load_run_head(run)


def test_a_comparison_names_the_fit_to_take(tmp_path: Path) -> None:
    fits = [
        {"folder": f"fits/{name}", "selected": chosen, "scores": {"validation": {"log_loss": loss}}}
        for name, chosen, loss in (("a", True, 0.5), ("b", True, 0.4), ("c", False, 0.1))
    ]
    summary = {"experiment": {"select": "log_loss"}, "fits": fits}
    (tmp_path / "results.json").write_text(json.dumps(summary))
    with pytest.raises(RunError, match=r"a comparison, .* Name .*fits/b, the best on validation"):
        load_run_head(tmp_path)
