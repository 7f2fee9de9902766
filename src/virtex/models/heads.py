"""The head of the classification tasks: a linear layer on the mean of the grid."""

from torch import Tensor, nn


class LabelHead(nn.Module):
    """Logits of V labels, given an image's grid of C channels."""

    def __init__(self, feature_size: int, labels: int) -> None:
        super().__init__()
        self.output = nn.Linear(feature_size, labels)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, h, w) to (B, V)."""
        logits: Tensor = self.output(grid.mean(dim=(2, 3)))
        return logits
