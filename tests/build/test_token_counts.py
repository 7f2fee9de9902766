"""The number of images with each token, against a count in plain Python."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from virtex.build import token_counts
from virtex.build.token_counts import check_countable, count_tokens
from virtex.config.schema import Config
from virtex.data.images import BadImage
from virtex.data.records import Record
from virtex.errors import UserError
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.text.tokenizer import Tokenizer, train

TEXTS = ["a red circle", "two blue squares", "a blue circle", "a a a"]
TOKENIZER = Tokenizer.from_bytes(train(TEXTS, 36))
CAPTIONS = CaptionTokens(TOKENIZER, max_length=5)


class Pairs:
    """Image i has the captions i and i + 1, again and again; those in `bad` cannot be read."""

    def __init__(self, images, bad=()):
        self.images, self.bad = images, bad

    def __len__(self):
        return self.images

    def __getitem__(self, index):
        if index in self.bad:
            raise BadImage(str(index), "damaged")
        texts = (TEXTS[index % 4], TEXTS[(index + 1) % 4])
        return Record(index, Path("unread.jpg"), texts)


def count(records, processes=1):
    """The sums of all processes' counts, and how many lines each reports."""
    lines = []
    parts = [
        count_tokens(records, CAPTIONS, rank, processes, lines.append) for rank in range(processes)
    ]
    return sum(part.images for part in parts), sum(part.images_with for part in parts), lines


def plainly(records, positions):
    counts = Counter()
    for position in positions:
        tokens = {token for text in records[position].captions for token in TOKENIZER.encode(text)}
        counts.update(tokens - TOKENIZER.special_ids)
    return [counts[token] for token in range(TOKENIZER.vocab_size)]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_image_is_counted_once_whatever_the_number_of_processes(processes):
    records = Pairs(2_003, bad=(5, 1_200))
    images, images_with, lines = count(records, processes)
    assert images == 2_001
    positions = [n for n in range(2_003) if n not in records.bad]
    assert images_with.tolist() == plainly(records, positions)
    assert len(lines) == 3  # of 1,000 images each


def test_of_many_images_runs_from_all_over_are_counted(monkeypatch):
    monkeypatch.setattr(token_counts, "MOST_IMAGES", 3_000)
    records = Pairs(9_000)
    images, images_with, _ = count(records, 2)
    assert images == 3_000
    runs = [range(0, 1_000), range(4_000, 5_000), range(8_000, 9_000)]
    assert images_with.tolist() == plainly(records, [n for run in runs for n in run])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"auxiliary": {"tokens": {"weight": 1.0}}}, "set AUXILIARY.TOKENS.WEIGHT to 0"),
        (
            {
                "name": "token_classification",
                "token_weighting": "idf",
                "textual": {"name": "none"},
            },
            "set TOKEN_WEIGHTING to uniform",
        ),
    ],
)
def test_remote_shards_are_refused(model, message):
    local, remote = SimpleNamespace(remote=None), SimpleNamespace(remote=object())
    config = Config(model=model)
    check_countable(config, local)
    check_countable(Config(), remote)
    with pytest.raises(UserError, match=message):
        check_countable(config, remote)
