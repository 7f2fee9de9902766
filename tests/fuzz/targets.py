"""The readers that are fuzzed, by name."""

from collections.abc import Callable, Mapping

from tests.fuzz.binary_targets import CheckpointTarget, ImageTarget, VocabularyTarget
from tests.fuzz.campaign import Target
from tests.fuzz.tar_target import IndexTarget, ShardTarget
from tests.fuzz.text_targets import AnnotationsTarget, SettingsTarget

TARGETS: Mapping[str, Callable[[], Target]] = {
    "settings": SettingsTarget,
    "checkpoint": CheckpointTarget,
    "captions": lambda: AnnotationsTarget("captions"),
    "instances": lambda: AnnotationsTarget("instances"),
    "images": ImageTarget,
    "vocabulary": VocabularyTarget,
    "shards": ShardTarget,
    "index": IndexTarget,
}
