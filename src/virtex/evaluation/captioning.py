"""Captions that a model generates, scored against the captions of the validation split."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from virtex.data.images import BadImage
from virtex.data.records import Record
from virtex.errors import first_few
from virtex.evaluation.captioned_images import captioned_images
from virtex.evaluation.features import data_hash
from virtex.evaluation.figures import Figure, mean_statistics
from virtex.evaluation.heads import (
    BadImages,
    EvaluatedModel,
    HeadEvaluation,
    HeadSettings,
)
from virtex.files import write_whole
from virtex.inference.captioning import caption_images
from virtex.metrics import caption_scores
from virtex.metrics.tokenizers import TokenizerName, find_tokenizer

_NO_WORDS = "∅"
"""Stands for an empty caption: one word that no reference has."""
_PER_IMAGE = ("ROUGE_L", "CIDEr")
"""The metrics that are means over the images."""


def open_captioning(
    root: Path, *, tokenize: TokenizerName = "ptb", predictions: Path | None = None
) -> HeadEvaluation:
    """The images and captions of the validation split; raises `UserError` for wrong data.

    `predictions` is the file, JSON lines, to which the generated captions are written.
    """
    find_tokenizer(tokenize)
    records, report = captioned_images(root, "val")
    paths = tuple(Path(str(record.image)) for record in records)
    texts = "\n".join("\0".join(record.captions) for record in records)
    references = sum(len(record.captions) for record in records)

    def figures(model: EvaluatedModel, settings: HeadSettings) -> list[Figure]:
        captions = _captions(model, paths, settings)
        if predictions is not None:
            lines = [_line(records[row], *caption) for row, caption in captions.items()]
            write_whole(predictions, "".join(lines).encode("utf-8", "backslashreplace"))
        found = {row: text for row, (text, _) in captions.items()}
        # As in training.
        references = {
            row: [model.tokenizer.normalize(text) for text in records[row].captions]
            for row in found
        }
        decoder = model.pretrained.config.model.decoder
        common = {"tokenize": tokenize, "decoder": decoder.model_dump(), "images": len(found)}
        return [
            *_scores(found, references, tokenize, common),
            *diversity(list(found.values()), common, settings),
        ]

    return HeadEvaluation(
        root,
        paths,
        data_hash(root, paths, np.frombuffer(texts.encode("utf-8", "surrogatepass"), np.uint8)),
        (f"{len(records):,} validation images with {references:,} captions", *report),
        figures,
    )


def _captions(
    model: EvaluatedModel, paths: Sequence[Path], settings: HeadSettings
) -> dict[int, tuple[str, float]]:
    """The best caption and its score for each image that can be read, by its position."""
    pretrained = model.pretrained
    bad = BadImages(len(paths), settings)
    found: dict[int, tuple[str, float]] = {}
    batches = caption_images(
        pretrained, pretrained.captioner(), paths, top=1, batch_size=settings.batch_size
    )
    position = 0
    with settings.precision.autocast():
        for batch in batches:
            for result in batch:
                if isinstance(result, BadImage):
                    bad.add([result])
                else:
                    best = result.captions[0]
                    found[position] = best.text, best.score
                position += 1
            settings.advance(len(batch))
    bad.report()
    empty = [str(paths[row]) for row, (text, _) in found.items() if not text.strip()]
    if empty:
        settings.say(f"{len(empty)} images get an empty caption: {first_few(empty)}")
    return found


def _line(record: Record, text: str, score: float) -> str:
    values = {
        "image_id": record.image_id,
        "path": str(record.image),
        "caption": text,
        "score": round(score, 4),
        "references": record.captions,
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


def _scores(
    found: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    tokenize: TokenizerName,
    common: Mapping[str, object],
) -> list[Figure]:
    """The metrics of captions in percent."""
    scores = caption_scores(
        {row: text if text.strip() else _NO_WORDS for row, text in found.items()},
        references,
        tokenize,
    )
    columns = [[image[name] for image in scores.per_image.values()] for name in _PER_IMAGE]
    intervals = {
        figure.metric: figure for figure in mean_statistics(_PER_IMAGE, columns).figures(common)
    }
    return [
        intervals.get(name) or Figure(name, 100 * value, settings=common)
        for name, value in scores.corpus.items()
    ]


def diversity(
    captions: Sequence[str], common: Mapping[str, object], settings: HeadSettings
) -> list[Figure]:
    """The share of captions that are distinct, and of images with the most frequent one.

    Says which caption that is, and warns when more than half of the images get it.
    """
    counts = Counter(captions)
    ((frequent, number),) = counts.most_common(1)
    line = (
        f"{len(counts):,} of {len(captions):,} captions are distinct; the most frequent, "
        f"{frequent!r}, is that of {number:,} images"
    )
    if 2 * number > len(captions) > 1:
        line = f"warning: {line}, more than half: the model hardly tells these images apart"
    settings.say(line)
    return [
        Figure("distinct_captions", 100 * len(counts) / len(captions), settings=common),
        Figure("most_frequent_caption", 100 * number / len(captions), settings=common),
    ]
