import io
import pickle
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from virtex.errors import UserError
from virtex.text.model_file import normalizer_name, with_normalizer_name
from virtex.text.tokenizer import CONTROL_SYMBOLS, Tokenizer, train

COLORS = ["red", "green", "blue", "grey", "white"]
SHAPES = ["circle", "square", "triangle", "star"]
CAPTIONS = [
    f"A {color} {shape} is {side} of a {other} [SOS]"
    for color in COLORS
    for shape in SHAPES
    for other in SHAPES
    for side in ("left", "right")
]
MODEL = train(CAPTIONS, 80)
TOKENIZER = Tokenizer.from_bytes(MODEL)


def test_special_ids_are_the_published_ones():
    assert [TOKENIZER.token(index) for index in range(4)] == ["<unk>", *CONTROL_SYMBOLS]
    indices = (TOKENIZER.unk_index, TOKENIZER.sos_index, TOKENIZER.eos_index, TOKENIZER.mask_index)
    assert indices == (0, 1, 2, 3)
    assert TOKENIZER.vocab_size == 80


def test_training_is_a_function_of_the_captions():
    assert train(CAPTIONS, 80) == MODEL


def test_training_normalises_captions():
    assert train([caption.upper() for caption in CAPTIONS], 80) == MODEL


@given(st.lists(st.sampled_from([*COLORS, *SHAPES, "a", "is", "left"]), min_size=1).map(" ".join))
def test_decoding_undoes_encoding(text):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert min(ids) > 3


@given(st.lists(st.sampled_from([*CONTROL_SYMBOLS, *COLORS, "[sos]", "<unk>", "é", "S", " "])))
def test_no_text_encodes_to_a_control_symbol(words):
    assert not {1, 2, 3} & set(TOKENIZER.encode(" ".join(words)))


def test_unknown_text_is_id_zero():
    assert 0 in TOKENIZER.encode("ж")


def test_decoding_leaves_special_tokens_out():
    ids = TOKENIZER.encode("red circle")
    assert TOKENIZER.decode([1, ids[0], 3, *ids[1:], 0, 2, 0, 0]) == "red circle"


def test_a_pickled_tokenizer_is_the_same():
    copy = pickle.loads(pickle.dumps(TOKENIZER))
    assert copy.model_bytes == MODEL
    assert copy.encode("a red star") == TOKENIZER.encode("a red star")


def test_long_captions_are_trained_on():
    long = "zebra " * 2000
    assert 0 not in Tokenizer.from_bytes(train([*CAPTIONS, long], 80)).encode("zebra")


def test_a_file_gives_the_same_tokenizer(tmp_path):
    path = tmp_path / "vocab.model"
    path.write_bytes(MODEL)
    assert Tokenizer.from_file(path).encode("a red star") == TOKENIZER.encode("a red star")


def test_models_trained_with_the_published_flags_load():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS),
        model_writer=model,
        vocab_size=80,
        model_type="bpe",
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        control_symbols="[SOS],[EOS],[MASK]",
        minloglevel=2,
    )
    assert Tokenizer.from_bytes(model.getvalue()).mask_index == 3


def test_a_model_without_our_control_symbols_is_refused():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS), model_writer=model, vocab_size=30, minloglevel=2
    )
    with pytest.raises(UserError, match=r"no control symbol \[SOS\]"):
        Tokenizer.from_bytes(model.getvalue())


def test_every_beginning_of_a_model_is_refused():
    # All cuts through the pieces and the trainer's settings, some through the long rest.
    for length in [*range(1500), *range(1500, len(MODEL), 20_000), len(MODEL) - 1]:
        with pytest.raises(UserError, match=r"is not a (complete )?SentencePiece"):
            Tokenizer.from_bytes(MODEL[:length])


def test_a_truncated_file_is_refused_by_its_name(tmp_path):
    path = tmp_path / "vocab.model"
    path.write_bytes(MODEL[:-1000])
    with pytest.raises(UserError, match=r"vocab\.model is not a complete"):
        Tokenizer.from_file(path)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data):
    with pytest.raises(UserError, match="not a"):
        Tokenizer.from_bytes(data)


def test_a_piece_that_is_no_text_is_refused():
    place = MODEL.index("▁".encode())
    with pytest.raises(UserError, match="the given bytes is not a SentencePiece model: 'utf-8'"):
        Tokenizer.from_bytes(MODEL[:place] + b"\xff" + MODEL[place + 1 :])


def test_a_file_without_end_is_refused():
    with pytest.raises(
        UserError, match="the vocabulary /dev/zero is larger than 64 MB; create one"
    ):
        Tokenizer.from_file(Path("/dev/zero"))


def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"none\.model.*virtex tokenizer"):
        Tokenizer.from_file(tmp_path / "none.model")


def test_too_large_a_vocabulary_says_the_largest():
    with pytest.raises(UserError, match=r"10000.*largest possible size is") as caught:
        train(CAPTIONS, 10000)
    largest = int(str(caught.value).rsplit(" ", 1)[1])
    assert Tokenizer.from_bytes(train(CAPTIONS, largest)).vocab_size == largest


def test_too_small_a_vocabulary_says_the_smallest():
    with pytest.raises(UserError, match="characters alone need") as caught:
        train(CAPTIONS, 5)
    smallest = int(str(caught.value).rsplit(" ", 1)[1])
    assert Tokenizer.from_bytes(train(CAPTIONS, smallest)).vocab_size == smallest


@pytest.mark.parametrize("captions", [[], [""], ["  ", "\n"], ["\u200b"], ["\u0301"]])
def test_captions_without_text_are_refused(captions):
    with pytest.raises(UserError, match="no caption with any text"):
        train(captions, 100)


@pytest.mark.parametrize("size", [0, -1])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(UserError, match="not possible"):
        train(CAPTIONS, size)


KEPT = [
    "赤いボールとパン",
    "रास्ते पर स्कूल की बस",
    "น้ำไม่มี",
    "con má và cái mạ",
    "빨간 공이 있다",
    "groß",
    "йогурт",
]


@pytest.mark.parametrize("normalization", ["nfkc_lower", "nfc", "none"])
def test_a_vocabulary_keeps_its_normalisation_and_all_letters(tmp_path, normalization):
    path = tmp_path / "vocab.model"
    path.write_bytes(train([*KEPT, "Ein Ａ"], 120, normalization))
    tokenizer = pickle.loads(pickle.dumps(Tokenizer.from_file(path)))
    assert tokenizer.normalization == normalization
    for text in KEPT:
        assert tokenizer.decode(tokenizer.encode(tokenizer.normalize(text))) == text
    wide = {"nfkc_lower": "ein a"}.get(normalization, "Ein Ａ")
    assert tokenizer.decode(tokenizer.encode(tokenizer.normalize("Ein Ａ"))) == wide
    for length in range(len(path.read_bytes()) - 40, len(path.read_bytes())):
        with pytest.raises(UserError, match=r"is not a (complete )?SentencePiece"):
            Tokenizer.from_bytes(path.read_bytes()[:length])


def test_the_published_normalisation_leaves_no_sign():
    assert train(CAPTIONS, 80, "published") == MODEL
    assert TOKENIZER.normalization == "published"
    assert b"virtex" not in MODEL


def test_sentencepiece_itself_reads_a_model_with_our_name():
    model = train(KEPT, 120, "nfc")
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert processor.decode(processor.encode("빨간 공이")) == "빨간 공이"
    assert normalizer_name(with_normalizer_name(model, "n" * 300)) == "n" * 300


def test_a_normalisation_of_a_later_version_is_refused():
    model = with_normalizer_name(MODEL, "virtex_nfkd_upper")
    with pytest.raises(UserError, match=r"'nfkd_upper', which this version does not know"):
        Tokenizer.from_bytes(model)
