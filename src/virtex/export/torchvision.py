"""The backbone as torchvision's network of its name, for programs that know nothing of virtex."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from virtex.errors import UserError
from virtex.export.upstream import current_names
from virtex.models.weights import misfits, model_weights

_PREFIX = "visual.cnn."
_CLASSIFIER = "fc."


def backbone_weights(state: Mapping[Any, Any]) -> dict[str, Any]:
    """The backbone's weights in a checkpoint's `state`, under torchvision's names.

    `state` is of any file that `virtex.load` reads, or of one with torchvision's names alone; the
    classifier of the latter is left out.
    """
    weights = current_names(model_weights(state))
    below = {
        name.removeprefix(_PREFIX): value
        for name, value in weights.items()
        if name.startswith(_PREFIX)
    }
    return below or {
        name: value for name, value in weights.items() if not name.startswith(_CLASSIFIER)
    }


def load_backbone(network: nn.Module, state: Mapping[Any, Any], source: str) -> None:
    """Load `backbone_weights` into a residual network without its classifier.

    Raises `UserError` that names what is missing, left over or of another shape.
    """
    weights = backbone_weights(state)
    lines = misfits(network.state_dict(), weights)
    if lines:
        raise UserError(
            f"the backbone in {source} does not fit the network that was asked for:\n"
            + "\n".join(lines)
        )
    network.load_state_dict(weights)
