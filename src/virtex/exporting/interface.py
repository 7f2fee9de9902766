"""The export of a checkpoint's backbone, as a function."""

from pathlib import Path

from virtex.checkpoints.exported import Target
from virtex.checkpoints.state import read
from virtex.errors import UserError, first_few
from virtex.evaluation.backbones import open_backbones
from virtex.evaluation.results import RESULTS, read_results
from virtex.exporting.backbone import TARGETS, ExportedBackbone, export_backbone
from virtex.exporting.verification import Verification, verify


def export(
    checkpoint: str | Path,
    target: Target,
    directory: str | Path,
    *,
    config: str | Path | None = None,
    network: str | None = None,
) -> list[Verification]:
    """Write the backbone of a checkpoint to a new directory, and load it back.

    The result has an entry for each library that loads it. A checkpoint that holds only weights
    needs `config`, the YAML file of its run, or `network`, such as torchvision::resnet50. Raises
    `UserError` as `export_backbone` does, and if a library is not installed.
    """
    if target not in TARGETS:
        raise UserError(f"the target is {target!r}; expected one of {first_few(TARGETS)}")
    (opened,) = open_backbones(
        [str(checkpoint)],
        config=None if config is None else Path(config),
        network_name=network,
    )
    state = None
    if target == "virtex":
        saved = read(Path(checkpoint))
        if not saved.is_own:
            raise UserError(
                f"{checkpoint} is not a checkpoint of `virtex pretrain`, so the settings and the"
                " vocabulary of its head are not known; export its backbone, such as to timm"
            )
        state = saved.state
    recorded = None if opened.path is None else opened.path.parent / RESULTS
    results = [] if recorded is None or not recorded.exists() else read_results(recorded)
    exported = ExportedBackbone(
        opened.module,
        opened.config,
        opened.name,
        opened.iteration,
        opened.contents,
        tuple(one for one in results if one.checkpoint == opened.sha256),
        state,
    )
    export_backbone(target, exported, Path(directory))
    return verify(Path(directory))
