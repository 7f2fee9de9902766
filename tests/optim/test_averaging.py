"""The average of weights, against its formula in plain Python."""

import torch
from tests import small

from virtex.optim.averaging import WeightAverage


def stepped(model, seed):
    """Other weights, statistics and counters."""
    small.spread(model, seed)
    for name, buffer in model.named_buffers():
        if not name.startswith("visual.pixel"):
            buffer.copy_(torch.full_like(buffer, seed))


@torch.no_grad()
def test_it_is_the_weighted_mean_with_a_warm_up_of_the_decay():
    model = small.captioning().double()
    average = WeightAverage(model, decay=0.3)
    expected = small.state_of(model)
    for number in range(1, 8):
        stepped(model, number)
        average.update(model)
        decay = min(0.3, (1 + number) / (10 + number))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    for name, value in average.weights.items():
        torch.testing.assert_close(value, expected[name])
    tied = expected.keys() - average.weights.keys()
    assert "textual.output.weight" in tied
    model.load_state_dict({**model.state_dict(), **average.weights}, strict=True)
    for name in tied:
        torch.testing.assert_close(model.state_dict()[name], expected[name])


def test_it_is_exchanged_with_the_weights_and_back():
    model = small.captioning()
    average = WeightAverage(model, decay=0.9)
    stepped(model, 1)
    average.update(model)
    weights, averaged = small.state_of(model), {k: v.clone() for k, v in average.weights.items()}
    storages = [parameter.data_ptr() for parameter in model.parameters()]
    with average.applied(model):
        inside = small.state_of(model)
        small.assert_same({name: inside[name] for name in averaged}, averaged)
        assert inside["textual.output.weight"].equal(inside["textual.embedding.words.weight"])
    small.assert_same(small.state_of(model), weights)
    small.assert_same(average.weights, averaged)
    assert storages == [parameter.data_ptr() for parameter in model.parameters()]


def test_it_continues_from_its_state():
    model = small.captioning()
    whole = WeightAverage(model, decay=0.9)
    whole.update(model)
    resumed = WeightAverage(model, decay=0.9)
    resumed.load_state_dict(whole.state_dict())
    stepped(model, 1)
    for average in (whole, resumed):
        average.update(model)
    small.assert_same(whole.weights, resumed.weights)
    assert whole.updates == resumed.updates == 2
