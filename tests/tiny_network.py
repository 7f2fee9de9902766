"""A network of four blocks for tests, registered among torchvision's: steps take milliseconds."""

from torchvision.models._api import register_model
from torchvision.models.regnet import BlockParams, RegNet

NAME, FEATURE_SIZE = "regnet_tiny", 64


def regnet_tiny(*, weights=None, **options):
    """A RegNet of four blocks with squeeze and excitation, 8 to 64 channels wide."""
    assert weights is None
    widths = [8, 16, 32, FEATURE_SIZE]
    parameters = BlockParams([1] * 4, widths, [8] * 4, [1.0] * 4, [2] * 4, se_ratio=0.25)
    return RegNet(parameters, **options)


# Listed with torchvision's own, as the names of networks are taken from there.
regnet_tiny.__module__ = "torchvision.models.regnet"
register_model()(regnet_tiny)
