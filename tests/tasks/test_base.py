import torch

from virtex.tasks.base import Loss


def test_mean_is_the_quotient():
    assert float(Loss(torch.tensor(6.0), torch.tensor(4)).mean) == 1.5


def test_mean_of_nothing_is_zero_with_a_gradient():
    weight = torch.ones(1, requires_grad=True)
    Loss((weight * 0).sum(), torch.tensor(0)).mean.backward()
    assert weight.grad.tolist() == [0.0]
