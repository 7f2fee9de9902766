"""The directory of a whole model: weights as safetensors, settings as JSON, and the vocabulary.

It holds what the use of a model needs and no state of its training. `virtex_model.json` has the
keys `format`, `config`, `iteration`, `versions`, `data`, `categories` and `classes`, as in a
checkpoint; the vocabulary of tokens is `vocabulary.model`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from virtex.checkpoints.exported import WEIGHTS, load_tensors, save_tensors
from virtex.errors import UserError
from virtex.files import read_at_most, write_whole

MODEL = "virtex_model.json"
VOCABULARY = "vocabulary.model"
FILES = (MODEL, VOCABULARY, WEIGHTS)
_FORMAT = 1
_MOST_BYTES = 64 << 20
_KEPT = ("config", "iteration", "versions", "data", "categories", "classes")


def is_model_directory(path: Path) -> bool:
    """Whether a directory holds a whole model."""
    return (path / MODEL).is_file()


def write_model(directory: Path, state: Mapping[str, Any]) -> None:
    """Write the model in the `state` of a checkpoint of a run; raises `UserError`."""
    directory.mkdir(parents=True, exist_ok=True)
    weights: dict[str, torch.Tensor] = {}
    held: set[int] = set()
    for name, value in state["model"].items():  # tied tensors once, as the format has no names
        if value.data_ptr() not in held or not value.numel():
            weights[name] = value
            held.add(value.data_ptr())
    save_tensors(directory / WEIGHTS, weights, {"format": "pt"})
    tokenizer = state.get("tokenizer")
    if tokenizer is not None:
        write_whole(directory / VOCABULARY, tokenizer.numpy().tobytes())
    kept = {name: state.get(name) for name in _KEPT} | {"config": _without_places(state["config"])}
    content = json.dumps({"format": _FORMAT, **kept}, ensure_ascii=False, indent=1)
    # Last, so that a directory with this file is complete.
    write_whole(directory / MODEL, content.encode() + b"\n")


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of which paths have only their last name, as others need not see where data lay."""
    data = dict(config["DATA"])
    for key in ("ROOT", "TOKENIZER_MODEL"):
        data[key] = Path(data[key]).name
    data |= {"SOURCES": [], "CACHE_DIR": None, "SUBSET_MANIFEST": None}
    return {**config, "DATA": data}


def read_model(directory: Path) -> dict[str, Any]:
    """The state of a checkpoint without that of its training; raises `UserError`."""
    path = directory / MODEL
    remedy = "export the model again"
    content = read_at_most(path, _MOST_BYTES, name=f"the model {path}", remedy=remedy)
    try:
        state = json.loads(content)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}; {remedy}") from error
    if not isinstance(state, dict) or state.pop("format", None) != _FORMAT:
        raise UserError(f"{path} is of another format than {_FORMAT}; {remedy}")
    vocabulary = directory / VOCABULARY
    tokenizer = None
    if vocabulary.is_file():
        data = bytearray(vocabulary.read_bytes())
        tokenizer = torch.frombuffer(data, dtype=torch.uint8)
    return {**state, "model": load_tensors(directory / WEIGHTS), "tokenizer": tokenizer}
