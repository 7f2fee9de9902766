"""Sizes, ids and the length of a run that the configuration leaves to the data."""

import io
from fractions import Fraction

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from virtex.build.resolve import (
    image_stages,
    iterations_of,
    resolve_length,
    resolve_sizes,
)
from virtex.config import loading as settings
from virtex.config.data import Data
from virtex.config.model import Model, Visual
from virtex.config.optim import Optim
from virtex.config.schema import Config
from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Categories, Classes

IDS = ("unk_index", "sos_index", "eos_index", "mask_index")


@pytest.fixture(scope="module")
def tokenizer():
    """A vocabulary whose special tokens have other ids than the published ones."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red circle", "a blue square"]),
        model_writer=model,
        model_type="bpe",
        vocab_size=26,
        **{"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1},
        control_symbols=["[MASK]", "[EOS]", "[SOS]"],
        minloglevel=2,
    )
    return Tokenizer.from_bytes(model.getvalue())


def test_what_is_left_out_comes_from_vocabulary_and_network(tokenizer):
    config = resolve_sizes(
        Config(model=Model(visual=Visual(name="torchvision::resnet18"))), tokenizer, "v"
    )
    assert config.data.vocab_size == 26
    assert [getattr(config.data, name) for name in IDS] == [1, 4, 3, 2]
    assert config.model.visual.feature_size == 512
    assert resolve_sizes(config, tokenizer, "v") is config


def test_what_is_given_is_checked(tokenizer):
    with pytest.raises(UserError, match=r"v: DATA\.SOS_INDEX is 1, but the file's is 4\. Set"):
        resolve_sizes(Config(data=Data(sos_index=1)), tokenizer, "v")
    width = Config(model=Model(visual=Visual(feature_size=7)))
    assert resolve_sizes(width, tokenizer, "v").model.visual.feature_size == 7  # checked when built


def test_a_size_that_was_left_out_must_fit_the_other_settings(tokenizer):
    wide = Config(model={"decoder": {"beam_size": 27}})
    with pytest.raises(UserError, match=r"v has 26 entries: .*set BEAM_SIZE to at most 26"):
        resolve_sizes(wide, tokenizer, "v")


@pytest.mark.parametrize(
    ("name", "data", "vocabulary", "size"),
    [
        ("multilabel_classification", {}, Categories(("cat", "dog")), 3),
        ("image_classification", {"format": "labelled"}, Classes(("cat", "dog")), 2),
    ],
)
def test_labels_need_no_ids_of_tokens(name, data, vocabulary, size):
    model = {"name": name, "textual": {"name": "none"}}
    config = resolve_sizes(Config(data={**data, "sos_index": 0}, model=model), vocabulary, "v")
    assert config.data.vocab_size == size
    assert [getattr(config.data, name) for name in IDS] == [1, 0, 2, 3]
    assert Config.model_validate_json(config.model_dump_json()) == config


@given(
    st.decimals("0.01", 50, places=2).map(float) | st.integers(1, 50).map(float),
    st.integers(1, 500),
    st.integers(1, 70),
)
def test_the_iterations_are_the_fewest_that_hold_the_epochs(epochs, images, batch_size):
    wanted, batches = Fraction(str(epochs)) * images, 0
    while batches * batch_size < wanted:
        batches += 1
    assert iterations_of(epochs, images, batch_size) == batches


def test_the_length_is_resolved_and_loads_back(tmp_path):
    config = Config(optim=Optim(num_epochs=1.5, batch_size=8, warmup_steps=14))
    assert config.optim.num_iterations is None
    path = tmp_path / "config.yaml"
    path.write_text(settings.dump(config))
    assert settings.load(Config, path) == config
    resolved = resolve_length(config, 79)
    assert resolved.optim.iterations == 15
    path.write_text(settings.dump(resolved))
    assert settings.load(Config, path) == resolved
    assert resolve_length(resolved, 1000) is resolved


@pytest.mark.parametrize(
    ("iterations", "stages"),
    [(10, [(3, 64), (7, 96)]), (1000, [(300, 64), (700, 96)]), (2, [(1, 96)]), (1, [])],
)
def test_sizes_of_images_change_after_their_shares_of_the_run(iterations, stages):
    config = Config(
        data={"image_sizes": [[0.3, 64], [0.7, 96]]},
        optim={"num_iterations": iterations, "warmup_steps": 0},
    )
    assert image_stages(config) == stages


def test_what_lies_outside_of_the_run_is_refused_with_all_numbers():
    steps = {"lr_decay_name": "multistep", "lr_steps": (40, 90, 100)}
    config = Config(optim=Optim(num_epochs=2, batch_size=10, warmup_steps=40, **steps))
    assert resolve_length(config, 501).optim.iterations == 101
    message = (
        r"NUM_EPOCHS 2 is 40 iterations of 10 images, as there are 200 training images, but "
        r"OPTIM\.WARMUP_STEPS is 40 and OPTIM\.LR_STEPS has 40, 90, 100;"
    )
    with pytest.raises(UserError, match=message):
        resolve_length(config, 200)
