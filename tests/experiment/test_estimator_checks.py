"""Both heads under scikit-learn's own checks of an estimator, with no exception."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from fer_features.experiment.heads import DenseHead, LogisticHead

# Few and large steps: the checks ask for more than a hundred fits, on a handful of rows each.
QUICK_DENSE = DenseHead(hidden=(32,), l2=0, dropout=0, learning_rate=0.03, batch_size=16, epochs=15)


@parametrize_with_checks([QUICK_DENSE, LogisticHead()])
def test_scikit_learns_check_passes(estimator, check):
    check(estimator)
