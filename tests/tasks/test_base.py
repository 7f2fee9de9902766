"""What all tasks share: losses as sums, and the cross-entropy of tokens."""

import math

import pytest
import torch
from tests import small, tiny_network

from virtex.build.model import build_objective
from virtex.config.schema import Config
from virtex.tasks.base import Loss, token_cross_entropy


def test_mean_is_the_quotient():
    assert float(Loss(torch.tensor(6.0), torch.tensor(4)).mean) == 1.5


def test_mean_of_nothing_is_zero_with_a_gradient():
    weight = torch.ones(1, requires_grad=True)
    Loss((weight * 0).sum(), torch.tensor(0)).mean.backward()
    assert weight.grad.tolist() == [0.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothing_divides_a_share_of_each_target_among_all_tokens(smoothing):
    logits = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.tensor([[1, 2, 0, 0], [3, 6, 5, 0], [4, 4, 0, 0]])
    expected = 0.0
    for row, wanted in zip(logits.flatten(0, 1).tolist(), targets.flatten().tolist(), strict=True):
        if wanted != 0:
            normaliser = math.log(sum(map(math.exp, row)))
            shares = [smoothing / 7 + (1 - smoothing) * (token == wanted) for token in range(7)]
            expected += sum(share * (normaliser - x) for share, x in zip(shares, row, strict=True))
    loss = token_cross_entropy(logits, targets, 0, smoothing)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("task", ["bicaptioning", "captioning", "masked_lm", "parallel_captioning"])
@torch.no_grad()
def test_smoothing_is_for_training_alone(task):
    def losses(smoothing, training):
        textual = {"label_smoothing": smoothing, "name": "transdec_postnorm::L1_H16_A2_F16"}
        visual = {"name": f"torchvision::{tiny_network.NAME}"}
        data = {"vocab_size": small.VOCABULARY}
        ids = {"unk_index": 0, "sos_index": 1, "eos_index": 2, "mask_index": 3}
        config = Config(
            data={**data, **ids}, model={"name": task, "textual": textual, "visual": visual}
        )
        torch.manual_seed(0)
        model = build_objective(config).train(training)
        batch = small.batch(4)
        batch |= {
            "image": torch.zeros(4, 3, 64, 64, dtype=torch.uint8),
            "masked_labels": batch["caption_tokens"],
            "parallel": torch.tensor([True, False, True, False]),
        }
        return {name: float(loss.total) for name, loss in model(batch).items()}

    assert losses(0.2, training=False) == losses(0.0, training=False)
    smooth, plain = losses(0.2, training=True), losses(0.0, training=True)
    assert all(smooth[name] != plain[name] for name in plain)
