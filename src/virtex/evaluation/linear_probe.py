"""The accuracy of a linear classifier on frozen features."""

from torch import Tensor

from virtex.evaluation.protocols.classifiers import fit_multinomial, standardise

_PENALTY = 2e-3
_TOLERANCE = 1e-7


def linear_probe_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor
) -> float:
    """Accuracy on `test` of multinomial logistic regression fitted on `train`.

    Features are (N, C) float, labels (N,) int64 from 0. Each feature is standardised by its mean
    and deviation on the training set. The fit starts from zero with a small L2 penalty that, other
    than in the protocol `linear`, is not chosen by the data.
    """
    inputs, held_out = standardise(train, test)
    classes = int(train_labels.max()) + 1
    start = inputs.values.new_zeros((classes, inputs.values.shape[1]))
    weights = fit_multinomial(inputs, train_labels, _PENALTY, start, _TOLERANCE)
    predicted = (held_out @ weights.T).argmax(dim=1)
    return float((predicted == test_labels).double().mean())
