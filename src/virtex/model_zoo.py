"""The published entry point `virtex.model_zoo.get`; new code uses `virtex.load`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtex.tasks.base import Objective


def get(config_path: str, pretrained: str | Path | bool = False) -> "Objective":
    """Build a model from the name of a published configuration, in training mode.

    `config_path` is such as `width_ablations/bicaptioning_R_50_L1_H2048.yaml`, or a YAML file of
    your own. `pretrained` is a checkpoint with its weights; False leaves them untrained. The
    backbone is `.visual.cnn` of the model.

    Raises `UserError` for settings or weights that cannot be used, and if `pretrained` is True, as
    no address serves the published weights reliably.
    """
    # Imported here, so that importing this module is fast.
    from virtex.build.model import build_objective, load_config
    from virtex.checkpoints.state import load_weights, read
    from virtex.errors import UserError
    from virtex.tasks.base import WEIGHT_PER_TOKEN

    if pretrained is True:
        raise UserError(
            "pretrained=True downloads nothing; give the file of the weights, such as "
            f"pretrained={Path(config_path).stem + '.pth'!r}"
        )
    config = load_config(Path(config_path))
    if config.data.vocab_size is None or len(config.data.special_ids) < 4:
        raise UserError(
            f"{config_path} does not set DATA.VOCAB_SIZE and the ids of special tokens, which only "
            "a vocabulary could tell; set them, or load a checkpoint with virtex.load"
        )
    objective = build_objective(config, weights_follow=pretrained is not False)
    if pretrained is not False:
        load_weights(objective, read(Path(pretrained)), WEIGHT_PER_TOKEN)
    return objective
