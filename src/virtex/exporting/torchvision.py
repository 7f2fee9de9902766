"""The backbone as a plain torchvision network, for programs that do not use virtex."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from virtex.errors import UserError
from virtex.models.first_convolution import RGB, first_convolution
from virtex.models.networks import Network, backbone_weights
from virtex.models.state_dict import current_names, model_weights, state_dict_mismatches


def load_backbone(into: Network, state: Mapping[Any, Any], source: str) -> None:
    """Copy weights into the network: the backbone's of `state`, or weights of torchvision's names.

    `state` is the content of any file that `virtex.load` reads. Raises `UserError` that names
    missing keys, unexpected keys and size mismatches.
    """
    weights = backbone_weights(into, current_names(model_weights(state)))
    first = f"{first_convolution(into.cnn)}.weight"
    held = weights.get(first)
    if isinstance(held, Tensor) and held.dim() == 4 and held.shape[1] != RGB:
        raise UserError(
            f"the backbone in {source} is for images with {held.shape[1]} bands, and this entry's "
            "for RGB; load it with virtex.load"
        )
    lines = state_dict_mismatches(into.cnn.state_dict(), weights)
    if lines:
        raise UserError(
            f"the backbone in {source} does not fit {into.name}; use the entry for its network:\n"
            + "\n".join(lines)
        )
    into.cnn.load_state_dict(weights)
