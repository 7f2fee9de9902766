import torch
from tests.evaluation import gaussians

from virtex.evaluation.protocols.minimization import minimize as minimize_with_guess


def minimize(objective, start, tolerance):
    return minimize_with_guess(
        objective, start, tolerance=tolerance, curvature=torch.ones_like(start)
    )


def quadratics(problems, width, conditions):
    """½ (x - target)ᵀ diag (x - target), with curvatures from 1 to each problem's condition."""
    target = gaussians.normal(problems, width, seed=0).double()
    curvature = torch.stack([torch.logspace(0, c, width, dtype=torch.float64) for c in conditions])

    def objective(point, which):
        difference = point - target[which]
        gradient = curvature[which] * difference
        return (gradient * difference).sum(1) / 2, gradient

    return objective, target


def test_every_problem_reaches_its_own_minimum():
    objective, target = quadratics(4, 8, conditions=(0, 1, 2, 4))
    found = minimize(objective, torch.zeros(4, 8, dtype=torch.float64), tolerance=1e-9)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-8)


def test_converged_problems_are_not_evaluated_again():
    objective, _ = quadratics(3, 8, conditions=(0, 0, 5))
    evaluated = []

    def recorded(point, which):
        evaluated.append(which.tolist())
        return objective(point, which)

    minimize(recorded, torch.zeros(3, 8, dtype=torch.float64), tolerance=1e-9)
    assert evaluated[0] == [0, 1, 2]
    assert evaluated[-1] == [2]


def test_a_batch_gives_what_each_problem_gives_alone():
    objective, _ = quadratics(2, 5, conditions=(1, 3))
    start = torch.ones(2, 5, dtype=torch.float64)
    both = minimize(objective, start, tolerance=1e-6)
    for number in (0, 1):
        alone = minimize(
            lambda x, _, number=number: objective(x, torch.tensor([number])),
            start[number : number + 1],
            tolerance=1e-6,
        )
        torch.testing.assert_close(both[number], alone[0], rtol=0, atol=1e-12)


def test_a_start_at_the_minimum_is_returned():
    objective, target = quadratics(2, 5, conditions=(1, 3))
    assert torch.equal(minimize(objective, target, tolerance=1e-9), target)


def test_a_minimum_that_rounding_hides_ends_the_search():
    objective, target = quadratics(1, 5, conditions=(6,))
    start = torch.zeros(1, 5, dtype=torch.float64)
    found = minimize(objective, start, tolerance=0)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-6)


def test_the_true_curvature_leads_to_the_minimum_in_one_step():
    objective, target = quadratics(2, 8, conditions=(3, 6))
    start = torch.zeros(2, 8, dtype=torch.float64)
    curvature = torch.stack([torch.logspace(0, c, 8, dtype=torch.float64) for c in (3, 6)])
    evaluated = []

    def recorded(point, which):
        evaluated.append(which)
        return objective(point, which)

    found = minimize_with_guess(recorded, start, tolerance=1e-6, curvature=curvature)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-9)
    assert len(evaluated) == 2
