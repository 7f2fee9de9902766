"""What a new run takes from a file of weights, compared row by row."""

from pathlib import Path

import pytest
import torch
from tests import tiny_network

from virtex._version import __version__
from virtex.build.initial_weights import InitialWeights, initial_weights, take_weights
from virtex.build.model import build_objective
from virtex.build.resolve import resolve_sizes
from virtex.checkpoints import file
from virtex.checkpoints.state import vocabulary_state
from virtex.config.schema import Config
from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer, train
from virtex.text.vocabulary import Categories

OLD = Tokenizer.from_bytes(train(["a red circle", "two blue squares"], 40))
NEW = Tokenizer.from_bytes(train(["a green circle above blue squares"], 40))
CAPTIONING = {"textual": {"name": "transdec_postnorm::L1_H16_A2_F16"}}
LABELS = {"textual": {"name": "none"}}
PER_ENTRY = ("embedding.words.weight", "output.weight", "output.bias")


def model(name, vocabulary, seed=0):
    """A new model, and its configuration; "+" adds weighted tokens to the task."""
    name, weighted = name.removesuffix("+"), name.endswith("+")
    head = LABELS if name.endswith("classification") else CAPTIONING
    if weighted and head is LABELS:
        head = {**LABELS, "token_weighting": "idf"}
    elif weighted:
        head = {**CAPTIONING, "auxiliary": {"tokens": {"weight": 0.5}}}
    visual = {"name": f"torchvision::{tiny_network.NAME}"}
    config = resolve_sizes(Config(model={"name": name, "visual": visual, **head}), vocabulary, "v")
    torch.manual_seed(seed)
    objective = build_objective(config)
    with torch.no_grad():  # biases too
        for parameter in objective.parameters():
            parameter.add_(torch.randn(parameter.shape) / 100)
        for buffer in objective.buffers():
            if buffer.dtype == torch.int64:
                buffer.add_(seed)
    return objective, config


def saved(path, name, vocabulary, *, published=False):
    objective, config = model(name, vocabulary, seed=1)
    state = {"model": objective.state_dict()}
    if not published:
        state |= {
            "config": config.model_dump(mode="json", by_alias=True),
            "versions": {"virtex": __version__},
            **vocabulary_state(vocabulary),
        }
    file.save(path, state)
    return objective.state_dict()


def taken(path, name, vocabulary, parts=None, tokenizer=None):
    """The weights of a new model before and after they are taken, and the lines for the log."""
    objective, config = model(name, vocabulary)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    lines = take_weights(objective, InitialWeights(path, parts, tokenizer), config, vocabulary)
    return before, objective.state_dict(), lines


def check_rows(given, before, after, old, new):
    """`old` and `new` are the names of all entries, in order."""
    assert before.keys() == after.keys() == given.keys()
    for key in after:
        if not key.endswith(PER_ENTRY):
            assert torch.equal(after[key], given[key]), key
            continue
        for index, name in enumerate(new):
            row = given[key][old.index(name)] if name in old else before[key][index]
            assert torch.equal(after[key][index], row), (key, name)


def pieces(tokenizer):
    return [tokenizer.token(index) for index in range(tokenizer.vocab_size)]


@pytest.mark.parametrize(
    "name", ["bicaptioning", "captioning", "masked_lm", "token_classification"]
)
def test_rows_of_equal_pieces_are_kept(name, tmp_path):
    path = tmp_path / "a.pth"
    given = saved(path, name, OLD)
    before, after, lines = taken(path, name, NEW, "all")
    check_rows(given, before, after, pieces(OLD), pieces(NEW))
    shared = len(set(pieces(OLD)) & set(pieces(NEW)))
    assert 4 < shared < 40
    assert f"vocabulary: {shared} of 40 pieces are also among the 40 of" in lines.notes[1]
    assert f"those of the other {40 - shared} are as in a new model" in lines.notes[1]
    assert not lines.cautions


COUNTS = ".label_counts."


@pytest.mark.parametrize("name", ["bicaptioning", "token_classification"])
@pytest.mark.parametrize("vocabulary", [OLD, NEW], ids=["same", "other"])
def test_a_second_target_comes_and_goes_between_runs(name, vocabulary, tmp_path):
    """Counts are those of the new run's data; its new layers are as in a new model."""
    plain, weighted = tmp_path / "plain.pth", tmp_path / "weighted.pth"
    states = {"": saved(plain, name, OLD), "+": saved(weighted, f"{name}+", OLD)}
    for path, before_has in ((plain, ""), (weighted, "+")):
        for after_has in ("", "+"):
            parts = None if vocabulary is OLD else "all"
            before, after, lines = taken(path, f"{name}{after_has}", vocabulary, parts)
            given = {
                key: states[before_has][key] if key in states[before_has] else before[key]
                for key in after
            }
            own = [key for key in after if COUNTS in key or key not in states[before_has]]
            for key in own:
                assert torch.equal(after[key], before[key]), key
            for key in own:
                for state in (given, before, after):
                    del state[key]
            check_rows(given, before, after, pieces(OLD), pieces(vocabulary))
            assert (f"({len(own)} others are new in this run)" in lines.notes[0]) == bool(own)


def test_published_weights_need_their_vocabulary(tmp_path):
    path, vocabulary = tmp_path / "a.pth", tmp_path / "old.model"
    given = saved(path, "bicaptioning", OLD, published=True)
    with pytest.raises(UserError, match="give its file with --init-tokenizer"):
        taken(path, "bicaptioning", NEW, "all")
    vocabulary.write_bytes(OLD.model_bytes)
    before, after, _ = taken(path, "bicaptioning", NEW, "all", vocabulary)
    check_rows(given, before, after, pieces(OLD), pieces(NEW))
    other = Tokenizer.from_bytes(train(["a red circle", "two blue squares"], 38))
    vocabulary.write_bytes(other.model_bytes)
    with pytest.raises(UserError, match=r"is \[40\], but its vocabulary has 38 entries"):
        taken(path, "bicaptioning", NEW, "all", vocabulary)


def test_rows_of_equal_categories_are_kept(tmp_path):
    path = tmp_path / "a.pth"
    given = saved(path, "multilabel_classification", Categories(("cat", "dog", "cow")))
    new = Categories(("dog", "horse", "cat", "hen"))
    before, after, _ = taken(path, "multilabel_classification", new, "all")
    old = ["background", "cat", "dog", "cow"]
    check_rows(given, before, after, old, ["background", *new.names])
    with pytest.raises(UserError, match="vocabularies are of different kinds"):
        taken(path, "token_classification", OLD, "all")


@pytest.mark.parametrize("parts", [None, "all"])
def test_an_equal_vocabulary_takes_everything(parts, tmp_path):
    given = saved(tmp_path / "a.pth", "bicaptioning", OLD)
    _, after, lines = taken(tmp_path / "a.pth", "bicaptioning", OLD, parts)
    assert all(torch.equal(after[key], given[key]) for key in given)
    assert "weights: all" in lines.notes[0]
    assert not lines.cautions


def test_by_default_another_vocabulary_of_equal_size_is_a_warning(tmp_path):
    given = saved(tmp_path / "a.pth", "bicaptioning", OLD)
    _, after, lines = taken(tmp_path / "a.pth", "bicaptioning", NEW)
    assert all(torch.equal(after[key], given[key]) for key in given)
    assert "its rows stand for other pieces" in lines.cautions[0]


@pytest.mark.parametrize("published", [False, True])
def test_the_backbone_alone_fits_any_task(published, tmp_path):
    path = tmp_path / "a.pth"
    given = saved(path, "token_classification", OLD, published=published)
    before, after, lines = taken(path, "bicaptioning", NEW, "backbone")
    visual = {key for key in after if key.startswith("visual.")}
    assert visual == {key for key in given if key.startswith("visual.")}
    for key in after:
        assert torch.equal(after[key], given[key] if key in visual else before[key]), key
    assert f"the {len(visual)} tensors of the backbone are those of" in lines.notes[0]
    assert f"the other {len(after) - len(visual)} tensors are as in a new model" in lines.notes[1]


def test_flags_that_lack_another_are_refused():
    path = Path("a")
    assert initial_weights(None, None, None) is None
    with pytest.raises(UserError, match="--init-parts all: give the file"):
        initial_weights(None, "all", None)
    for parts in (None, "backbone"):
        with pytest.raises(UserError, match="applies only to --init-parts all"):
            initial_weights(path, parts, path)
