"""The accuracy of a linear classifier on frozen features."""

import torch
import torch.nn.functional as F
from torch import Tensor

_PENALTY = 1e-3
_ITERATIONS = 200


def linear_probe_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor
) -> float:
    """Accuracy on `test` of multinomial logistic regression fitted on `train`.

    Features are (N, C) float, labels (N,) int64 from 0. Each feature is standardised by its mean
    and deviation on the training set. The fit is full-batch LBFGS from zero with a small L2
    penalty, so it is deterministic.
    """
    mean, std = train.double().mean(0), train.double().std(0)
    # A constant feature would become 0 / 0.
    std = torch.where(std > 0, std, torch.ones_like(std))
    inputs, held_out = ((x.double() - mean) / std for x in (train, test))
    classes = int(train_labels.max()) + 1
    weight = torch.zeros(classes, train.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weight.T + bias, train_labels)
        value = value + _PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        predicted = (held_out @ weight.T + bias).argmax(dim=1)
    return float((predicted == test_labels).double().mean())
