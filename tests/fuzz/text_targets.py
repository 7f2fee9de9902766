"""Fuzz targets of the readers of text: settings and COCO's annotations."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.fuzz import trees
from tests.fuzz.mutation import mutated

from virtex.config import loading as settings
from virtex.config import yaml12 as settings_yaml
from virtex.config.schema import Config
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.coco_objects import CocoCategories
from virtex.errors import UserError

# Between bars; a bar itself is missing.
_YAML = (
    b"- |: |\n|  |{|}|[|]|? |, |>|'|\"|&a |*a|!!|%YAML 1.1\n|---\n|...\n|<<: *a\n|\t|#|\0|\xff"
    b"|!!python/object/apply:os.system [ls]|\xef\xbb\xbf|1e999|0x|.nan|a: &a [*a, *a]\n|\\ud800"
    b"|_BASE_: a.yaml\n|_BASE_: base.yaml\n|\\0"
).split(b"|")
_JSON = (
    b'{|}|[|]|,|:|"|\\|\\\\|\\ud800|\\u0000|\xff| |NaN|-Infinity|1e999|-0|null|true|../|/etc/|'
    b"99999999999999999999"
).split(b"|")
CONFIGS = Path(__file__).parent.parent.parent / "src" / "virtex" / "configs"


def drawn(seeds: Sequence[bytes], words: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """A seed with changed bytes, or in one of ten cases nothing but words."""
    one, other = (seeds[int(rng.integers(len(seeds)))] for _ in range(2))
    if rng.integers(10):
        return mutated(one, rng, words, other)
    chosen = rng.integers(len(words), size=int(2 ** rng.uniform(0, 11)))
    return b"".join(words[int(index)] for index in chosen)


class SettingsTarget:
    """A YAML file for the configuration, also through `_BASE_`."""

    name = "settings"
    allowed = (UserError,)

    def __init__(self) -> None:
        self._values = Config().model_dump(mode="json", by_alias=True)
        names = settings.flat(Config())
        self._keys = ["_BASE_", *{key: None for name in names for key in name.split(".")}]
        files = sorted(CONFIGS.rglob("*.yaml"))
        self._seeds = [settings.dump(Config()).encode(), *(path.read_bytes() for path in files)]
        self._words = [*_YAML, *(f"{key}: ".encode() for key in self._keys)]

    def generate(self, rng: np.random.Generator) -> bytes:
        if rng.integers(2):
            return drawn(self._seeds, self._words, rng)
        values: Any = json.loads(json.dumps(self._values))
        for _ in range(int(rng.integers(1, 5))):
            values = trees.changed(values, rng, self._keys)
        try:
            text = json.dumps(values) if rng.integers(2) else settings_yaml.write(values)
        # Half a surrogate pair; or deeper than YAML's writer goes.
        except (UnicodeError, RecursionError):
            text = json.dumps(values)
        return text.encode("utf-8", "surrogatepass")

    def read(self, content: bytes, directory: Path) -> object:
        (directory / "a.yaml").write_bytes(content)
        (directory / "base.yaml").write_bytes(self._seeds[0])
        config = settings.load(Config, directory / "a.yaml")
        (directory / "again.yaml").write_text(settings.dump(config), encoding="utf-8")
        assert settings.load(Config, directory / "again.yaml") == config
        return config


class AnnotationsTarget:
    """A file of COCO's captions or objects; every image must lie inside of its directory."""

    allowed = (UserError,)

    def __init__(self, kind: str) -> None:
        self.name = kind
        self._records = CocoCaptions if kind == "captions" else CocoCategories
        self._value = {
            "info": {"year": 2017, "nested": [[{"a": None}]]},
            "images": [{"id": i, "file_name": f"{i:012}.jpg", "height": 1.5} for i in range(1, 6)],
            "annotations": [
                {"id": 9 * i, "image_id": i, "caption": f"a é \u2028 {i}", "category_id": i % 2}
                for i in range(1, 6)
            ],
            "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        }
        self._seeds = [
            json.dumps(self._value, ensure_ascii=bool(indent), indent=indent).encode()
            for indent in (None, 1)
        ]
        self._keys = [*self._value, "id", "file_name", "image_id", "caption", "category_id"]
        self._words = [*_JSON, *(f'"{key}":'.encode() for key in self._keys)]

    def generate(self, rng: np.random.Generator) -> bytes:
        if rng.integers(2):
            return drawn(self._seeds, self._words, rng)
        value: Any = json.loads(json.dumps(self._value))
        for _ in range(int(rng.integers(1, 5))):
            value = trees.changed(value, rng, self._keys)
        text = json.dumps(value, ensure_ascii=bool(rng.integers(2)))
        return text.encode("utf-8", "surrogatepass")

    def read(self, content: bytes, directory: Path) -> object:
        (directory / "annotations").mkdir()
        kind = "captions" if self.name == "captions" else "instances"
        (directory / "annotations" / f"{kind}_train2017.json").write_bytes(content)
        records = self._records(directory, "train", "skip")
        inside = (directory / "train2017").resolve()
        for index in range(len(records)):
            record = records[index]
            assert inside in record.image.resolve().parents
        return records
