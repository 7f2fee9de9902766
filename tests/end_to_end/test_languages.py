"""Captions of other scripts, from a table to the vocabulary, the run and the generated captions."""

import json
import unicodedata

import pytest

from virtex.cli import main
from virtex.decoding.captioner import NucleusSampling
from virtex.errors import UserError
from virtex.inference.pretrained import load

CAPTIONS = [
    "左に赤いボール",
    "右にパンとバナナ",
    "빨간 공이 있다",
    "น้ำไม่มี",
    "Straße, möchte",
    "ёж и йогурт",
]
SHORT = ("OPTIM.NUM_ITERATIONS", 4, "DATA.FORMAT", "table", "DATA.VOCAB_SIZE", 90)


@pytest.fixture(scope="module")
def table(scenes, tmp_path_factory):
    """The scenes, with captions in several languages."""
    root = tmp_path_factory.mktemp("languages")
    for split in ("train", "val"):
        directory = scenes.root / "scenes" / f"{split}2017"
        (root / split).symlink_to(directory, target_is_directory=True)
        rows = [
            {"image": f"{split}/{path.name}", "caption": CAPTIONS[number % len(CAPTIONS)]}
            for number, path in enumerate(sorted(directory.iterdir()))
        ]
        (root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def settings(table, normalization, *others):
    vocabulary = table / f"{normalization}.model"
    named = ("DATA.ROOT", table, "DATA.TOKENIZER_MODEL", vocabulary, *SHORT, *others)
    return (*named, "DATA.TEXT_NORMALIZATION", normalization)


def test_all_letters_survive_to_the_generated_captions(scenes, table, run):
    override = settings(table, "nfc", "DATA.MIRROR_WORDS", "[german, 左/右]")
    words = ["--config", scenes.config, "--overwrite", "--config-override", *override]
    assert main(["tokenizer", *map(str, words)]) == 0
    assert scenes.pretrain(run, override=override) == 0
    assert "TEXT_NORMALIZATION" not in (run / "log_rank0.txt").read_text(encoding="utf-8")
    model = load(run / "checkpoint_4.pth")
    assert model.config.data.mirror_words == ("german", "左/右")
    assert model.vocabulary.normalization == "nfc"
    for caption in CAPTIONS:
        ids = model.vocabulary.encode(model.vocabulary.normalize(caption))
        assert model.vocabulary.decode(ids) == caption
    image = next((table / "val").iterdir())
    drawn = model.caption([image], strategy=NucleusSampling(1.0, samples=8, seed=0))[0]
    text = "".join(caption.text for caption in drawn)
    assert len(text) > 20
    assert set(text) <= set("".join(CAPTIONS))
    assert "ボ" in "".join(model.vocabulary.token(i) for i in range(model.vocabulary.vocab_size))
    assert all(unicodedata.normalize("NFC", letter) == letter for letter in text)


def test_the_published_form_is_named_with_what_it_changes(scenes, table, run, capsys):
    override = settings(table, "published")
    words = [table, "--output", table / "published.model", "--vocab-size", 90]
    assert main(["tokenizer", *map(str, words)]) == 0
    assert scenes.pretrain(run, override=override) == 0
    log = (run / "log_rank0.txt").read_text(encoding="utf-8")
    assert "DATA.TEXT_NORMALIZATION published changes" in log
    assert "nfkc_lower keeps them" in log
    # Of another form, from the command line and from Python.
    capsys.readouterr()
    changed = (*override[:-1], "nfc")
    assert scenes.pretrain(run / "other", override=changed) == 2
    message = capsys.readouterr().err
    assert "DATA.TEXT_NORMALIZATION is nfc, but the file's is published" in message
    vocabulary = table / "mine.model"
    words = [table, "--output", vocabulary, "--vocab-size", 90, "--normalization", "nfkc_lower"]
    assert main(["tokenizer", *map(str, words)]) == 0
    with pytest.raises(UserError, match="is published, but the file's is nfkc_lower"):
        load(run / "checkpoint_4.pth", tokenizer=vocabulary)
