"""A model from one file: published, of older releases, bare, and our own."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.parity import cases
from tests.published import ENCODERS, older_names
from tests.small import assert_same, state_of

import virtex
from virtex.build.model import build_objective
from virtex.checkpoints import file as checkpoint
from virtex.checkpoints import state as restore
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.decoding.captioner import BeamSearch
from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer, train

CONFIGS = Path(__file__).parents[1].parent / "src" / "virtex" / "configs"
CASE = cases.figures("bicaptioning_postnorm")
WORDS = "textual.embedding.words.weight"


def vocabulary(size):
    pairs = [f"{a}{b} {b}{a}{b}" for a in "abcdefghijklm" for b in "nopqrstuvwxyz"]
    return train(pairs, size)


def configured(*overrides):
    return settings.load(Config, CONFIGS / CASE["config"], [*cases.overrides(CASE), *overrides])


class Files:
    """The parity case's weights as published; what is made of them lies in one directory."""

    def __init__(self, root):
        self.root = root
        self.config, self.tokenizer = root / "run.yaml", root / "pieces.model"
        self.config.write_text(settings.dump(configured()), encoding="utf-8")
        self.tokenizer.write_bytes(vocabulary(100))
        model = build_objective(configured())
        cases.set_weights(model, CASE["weight_std"])
        self.weights = state_of(model)

    def saved(self, state, name="weights.pth"):
        torch.save(state, self.root / name)
        return self.root / name

    def load(self, state):
        return virtex.load(self.saved(state), config=self.config, tokenizer=self.tokenizer)

    def own(self):
        """A checkpoint with all that `virtex.load` reads of one of ours."""
        return {
            "model": self.weights,
            "config": configured().model_dump(mode="json", by_alias=True),
            **restore.vocabulary_state(Tokenizer.from_file(self.tokenizer)),
            "versions": {"virtex": virtex.__version__},
        }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("published"))


def published(weights):
    """What the published system saves, in outline."""
    beside = {"iteration": 500, "optimizer": {"state": {}}, "scheduler": {"last_epoch": 3}}
    return {"model": weights, **beside, "amp": {"scale": torch.ones(1)}}


def said(beam):
    """The tokens before [EOS]."""
    return tuple(beam[: beam.index(2)] if 2 in beam else beam)


def message(files, state):
    with pytest.raises(UserError) as caught:
        files.load(state)
    return str(caught.value)


def test_published_weights_give_the_published_figures(files):
    loaded = files.load(published(files.weights))
    batch = cases.batch(CASE)
    with torch.inference_mode():
        losses = {name: float(loss.mean) for name, loss in loaded.objective(batch).items()}
    assert losses == pytest.approx(CASE["eval"]["loss_components"], rel=1e-5)
    for expected in CASE["decode"]:
        strategy = BeamSearch(expected["beam_size"])
        found = loaded.captioner(strategy).caption(batch["image"])
        tokens = [[said(beam) for beam in beams] for beams in expected["predictions"]]
        assert [[one.tokens for one in captions] for captions in found] == tokens
        scores = [[one.score for one in captions] for captions in found]
        assert np.array(scores) == pytest.approx(np.array(expected["log_probabilities"]), rel=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("wrap", [published, dict], ids=["published", "bare"])
def test_older_names_and_bare_state_dicts_give_the_same_model(files, encoder, wrap):
    loaded = files.load(wrap(older_names(files.weights, encoder)))
    assert_same(loaded.objective.state_dict(), files.weights)


def test_a_file_without_the_tied_copies_gives_the_same_model(files):
    shared = ("output.weight", "embedding.", "visual_projection.", "output.")
    once = {
        name: value
        for name, value in files.weights.items()
        if name != "textual.output.weight"
        and not name.startswith(tuple(f"backward_textual.{part}" for part in shared))
    }
    assert_same(files.load(once).objective.state_dict(), files.weights)


def test_half_precision_is_read_into_single(files):
    half = {
        name: value.half() if value.is_floating_point() else value
        for name, value in files.weights.items()
    }
    loaded = files.load(half).objective.state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32, torch.int64}
    assert torch.equal(loaded[WORDS], half[WORDS].float())


def test_a_file_in_the_old_format_of_torch_gives_the_same_model(files):
    path = files.root / "old.pth"
    torch.save(published(files.weights), path, _use_new_zipfile_serialization=False)
    loaded = virtex.load(path, config=files.config, tokenizer=files.tokenizer)
    assert_same(loaded.objective.state_dict(), files.weights)


def test_a_checkpoint_of_ours_is_enough_alone(files):
    loaded = virtex.load(files.saved(files.own()))
    assert_same(loaded.objective.state_dict(), files.weights)
    assert loaded.config == configured()
    assert loaded.vocabulary.model_bytes == files.tokenizer.read_bytes()
    assert not loaded.objective.training
    assert loaded.device == torch.device("cpu")


def test_what_is_given_replaces_what_a_checkpoint_of_ours_holds(files):
    config = configured("MODEL.DECODER.BEAM_SIZE", "2")
    path = files.saved(files.own())
    assert virtex.load(path, config=config).config.model.decoder.beam_size == 2
    other = files.root / "other.model"
    other.write_bytes(train(["many other words in here, 0123456789 {}"] * 2 + ["xyz"], 36))
    with pytest.raises(
        UserError, match=r"other\.model: DATA\.VOCAB_SIZE is 100, but the file's is 36"
    ):
        virtex.load(path, tokenizer=other)


def test_captions_and_features_are_those_of_the_picture(files):
    loaded = files.load(files.weights)
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (70, 90, 3), dtype=np.uint8) for _ in range(3)]
    together = loaded.caption(pictures, batch_size=2)
    assert [len(captions) for captions in together] == [5, 5, 5]
    features = loaded.features(pictures, batch_size=2)
    torch.testing.assert_close(loaded.features(pictures[0]), features[:1], rtol=1e-4, atol=1e-5)
    assert loaded.backbone is loaded.objective.visual
    assert features.shape == (3, 512)
    # Convolutions round differently in batches of other sizes.
    torch.testing.assert_close(features[2:], loaded.features(pictures[2:]), rtol=1e-4, atol=1e-5)


def test_weights_without_a_configuration_ask_for_it(files):
    path = files.saved(published(files.weights))
    with pytest.raises(UserError, match=r"weights\.pth holds weights but no .*--config.*config="):
        virtex.load(path)
    # A configuration of another program is none of ours.
    path = files.saved({**published(files.weights), "config": {"lr": 1}, "tokenizer": "bert"})
    with pytest.raises(UserError, match=r"weights\.pth holds weights but no .*--config.*config="):
        virtex.load(path)


@pytest.mark.parametrize("given", ["file", "value", "checkpoint"])
def test_settings_that_do_not_fit_their_task_are_refused(files, tmp_path, given):
    config = configured("MODEL.NAME", "token_classification")
    path = tmp_path / "weights.pth"
    torch.save(files.own() | {"config": config.model_dump(mode="json", by_alias=True)}, path)
    (tmp_path / "a.yaml").write_text(settings.dump(config), encoding="utf-8")
    configs = {"file": tmp_path / "a.yaml", "value": config, "checkpoint": None}
    with pytest.raises(UserError, match=r"MODEL\.TEXTUAL\.NAME.* expected the textual head 'none'"):
        virtex.load(path, config=configs[given])


def test_weights_without_a_vocabulary_ask_for_it(files):
    config = configured("DATA.TOKENIZER_MODEL", "/nowhere/coco.model")
    with pytest.raises(UserError, match=r"/nowhere/coco\.model.*--tokenizer"):
        virtex.load(files.saved(files.weights), config=config)


def test_a_vocabulary_of_another_size_is_named_with_both(files):
    other = files.root / "other.model"
    other.write_bytes(vocabulary(90))
    with pytest.raises(
        UserError, match=r"other\.model: DATA\.VOCAB_SIZE is 100, but the file's is 90"
    ):
        virtex.load(files.saved(files.weights), config=files.config, tokenizer=other)


def test_weights_of_another_vocabulary_are_named_so(files):
    other = files.root / "other.model"
    other.write_bytes(vocabulary(90))
    config = configured("DATA.VOCAB_SIZE", "90")
    with pytest.raises(UserError) as caught:
        virtex.load(files.saved(files.weights), config=config, tokenizer=other)
    text = str(caught.value)
    assert "weights.pth do not fit" in text
    assert "they are for a vocabulary of 100, DATA.VOCAB_SIZE is 90" in text
    assert "textual.output.bias [100] instead of [90]" in text


def test_weights_of_another_task_are_named_by_what_is_there(files):
    config = configured("MODEL.NAME", "captioning")
    with pytest.raises(UserError, match=r"unexpected keys \(26\): backward_textual\.") as caught:
        virtex.load(files.saved(files.weights), config=config, tokenizer=files.tokenizer)
    assert "missing" not in str(caught.value)
    forward = {k: v for k, v in files.weights.items() if not k.startswith("backward")}
    text = message(files, forward)
    # What both heads share is not missing.
    assert re.search(r"missing keys \(\d+\): backward_textual\.transformer\.layers\.0", text)
    assert "unexpected" not in text


def test_a_missing_and_a_foreign_weight_are_named(files):
    spoiled = dict(files.weights)
    spoiled["visual.cnn.fc.weight"] = spoiled.pop("visual.cnn.conv1.weight")
    text = message(files, spoiled)
    assert "missing keys (1): visual.cnn.conv1.weight" in text
    assert "unexpected keys (1): visual.cnn.fc.weight" in text


def test_two_values_for_one_tensor_are_refused(files):
    spoiled = files.weights | {"textual.output.weight": files.weights[WORDS] + 1}
    assert f"{WORDS} and textual.output.weight differ" in message(files, spoiled)


@pytest.mark.parametrize(
    ("state", "held"),
    [
        ({"state_dict": {"conv1.weight": torch.ones(1)}, "epoch": 3}, "it holds epoch, state_dict"),
        ({"model": {}, "iteration": 3}, "it holds iteration, model"),
        ({"model": "resnet50"}, "it holds model"),
        ({}, "it holds nothing"),
    ],
)
def test_a_file_without_weights_is_told_by_what_it_holds(files, state, held):
    text = message(files, state)
    assert "weights.pth holds no weights" in text
    assert held in text


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.write_text, (self.victim, "owned")


def test_a_file_that_runs_code_does_not(files):
    victim = files.root / "victim"
    with pytest.raises(UserError, match="could run code"):
        files.load({"model": files.weights, "trainer": Malicious(victim)})
    (files.root / "plain.pth").write_bytes(pickle.dumps({"model": Malicious(victim)}))
    with pytest.raises(UserError, match="could run code"):
        virtex.load(files.root / "plain.pth", config=files.config, tokenizer=files.tokenizer)
    assert not victim.exists()


def test_files_that_are_no_weights_are_named(files):
    whole = files.saved(files.weights).read_bytes()
    for content in (whole[: len(whole) // 2], b"not a checkpoint\n", b""):
        (files.root / "bad.pth").write_bytes(content)
        with pytest.raises(checkpoint.DamagedCheckpoint, match=r"bad\.pth"):
            virtex.load(files.root / "bad.pth", config=files.config)
    with pytest.raises(UserError, match=f"{files.root} is a directory"):
        virtex.load(files.root)


@pytest.mark.parametrize(
    ("picture", "named"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 \[8, 8, 3\]; expected uint8"),
        (np.zeros((8, 8), np.uint8), r"uint8 \[8, 8\]; expected uint8"),
        (Image.new("F", (8, 8)), "mode F: its pixels are 32-bit"),
    ],
)
def test_pictures_that_would_be_read_wrongly_are_refused(files, picture, named):
    model = files.load(files.weights)
    with pytest.raises(UserError, match=named):
        model.features([picture])
    assert model.features([]).shape == (0, 512)


def test_a_limit_on_images_is_named_by_its_argument(files, tmp_path):
    Image.new("RGB", (48, 40)).save(tmp_path / "a.png")
    options = {"config": files.config, "tokenizer": files.tokenizer}
    weights = files.saved(files.weights)
    assert len(virtex.load(weights, max_pixels=1920, **options).features([tmp_path / "a.png"])) == 1
    model = virtex.load(weights, max_pixels=1919, **options)
    with pytest.raises(UserError, match="48 x 40 pixels are more than max_pixels of"):
        model.features([tmp_path / "a.png"])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config": torch.ones(2)}, "settings are not virtex's"),
        ({"config": {"MODEL": 3}}, "does not accept: MODEL"),
        ({"config": None}, "does not accept"),
        ({"tokenizer": 3}, "holds no vocabulary"),
        ({"tokenizer": torch.ones(3)}, "holds no vocabulary"),
        ({"tokenizer": None}, "holds no vocabulary"),
        ({"tokenizer": None, "categories": [1]}, "holds no vocabulary"),
        ({"tokenizer": torch.ones(3, dtype=torch.uint8)}, "the given bytes is not a"),
    ],
)
def test_a_checkpoint_of_ours_with_other_things_in_it_is_refused(files, changes, named):
    with pytest.raises(UserError, match=named):
        virtex.load(files.saved(files.own() | changes))


def test_settings_of_a_model_that_no_memory_holds_are_refused_before_it_is_built(files):
    """Its weights would be terabytes; the file has none of that size."""
    own = files.own()
    own["config"]["MODEL"]["TEXTUAL"]["NAME"] = "transdec_postnorm::L1_H600000_A1_F900000"
    with pytest.raises(UserError, match="do not fit the configured model"):
        virtex.load(files.saved(own))
