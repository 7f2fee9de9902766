"""`virtex evaluate` with the protocols that use the captioning head, as a user calls it."""

import csv
import json

import pytest
import torch
from PIL import Image
from tests.commands.conftest import picture, saved

import virtex
from virtex.checkpoints import file as checkpoint
from virtex.cli import main
from virtex.errors import UserError
from virtex.inference.pretrained import load
from virtex.metrics import caption_scores

CAPTIONS = [
    ["a red square", "a square of red"],
    ["two green stars"],
    ["a blue circle left of a grey ring"],
    ["two green stars"],
    ["a ring"],
]
CLASSES = ("circle", "grey_ring")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Tables of captions and directories of classes, with the same images."""
    root = tmp_path_factory.mktemp("data")
    for split, first in (("train", 10), ("val", 0)):
        with (root / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "caption"])
            for number, captions in enumerate(CAPTIONS):
                image = root / split / CLASSES[number % 2] / f"{number}.png"
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture(first + number)).save(image)
                rows.writerows([image.relative_to(root), caption] for caption in captions)
    return root


@pytest.fixture
def evaluate(data, captioning_model, tmp_path, capsys):
    """A function that gives the exit status, standard output and error, and the results."""

    def run(protocol, *arguments, model=captioning_model):
        output = tmp_path / "results.json"
        flags = ["--data", data, "--checkpoint", model, "--output", output, "--cpu-workers", 0]
        status = main(["evaluate", protocol, *map(str, (*flags, *arguments))])
        results = json.loads(output.read_text()) if output.exists() else []
        return status, *capsys.readouterr(), {one["metric"]: one["value"] for one in results}

    return run


def test_captions_are_those_of_caption_and_their_scores_those_of_score(
    evaluate, captioning_model, data, tmp_path
):
    predictions = tmp_path / "predictions.jsonl"
    status, out, err, results = evaluate("captioning", "--predictions", predictions)
    assert status == 0
    lines = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    model = load(captioning_model)
    found = model.caption([line["path"] for line in lines])
    assert [line["caption"] for line in lines] == [captions[0].text for captions in found]
    expected = caption_scores(
        {line["image_id"]: line["caption"] for line in lines},
        {line["image_id"]: line["references"] for line in lines},
    )
    for metric, value in expected.corpus.items():
        assert results[metric] == pytest.approx(100 * value)
        assert metric in out
    distinct = len({line["caption"] for line in lines})
    assert results["distinct_captions"] == 100 * distinct / 5
    assert f"{distinct} of 5 captions are distinct" in err
    references = data / "references.jsonl"
    references.write_text(
        "".join(
            json.dumps({"image_id": line["image_id"], "caption": text}) + "\n"
            for line in lines
            for text in line["references"]
        )
    )
    assert main(["score", str(predictions), str(references)]) == 0


@pytest.mark.parametrize("protocol", ["captioning", "zero-shot", "retrieval"])
def test_results_do_not_depend_on_the_batch_size(evaluate, protocol):
    one, other = (evaluate(protocol, "--batch-size", size)[3] for size in (2, 5))
    assert one == other
    assert one


def test_the_most_likely_name_wins_and_gains_nothing_after_its_prior(
    evaluate, captioning_model, tmp_path
):
    """The output's bias alone decides: the head sees nothing of the image."""
    state = checkpoint.load(captioning_model)
    tokenizer = load(captioning_model).vocabulary
    state["model"]["textual.visual_projection.weight"].zero_()
    bias = state["model"]["textual.output.bias"]
    bias[tokenizer.encode("ring")] += 30
    checkpoint.save(tmp_path / "biased.pth", state)
    status, _, err, results = evaluate(
        "zero-shot", "--template", "{}", model=tmp_path / "biased.pth"
    )
    assert status == 0
    assert results["top1"] == 40  # two of five images are of the class
    assert results["balanced_accuracy"] == 50
    assert "prompts such as 'circle', 'grey ring'" in err


def test_prompts_are_named_that_the_vocabulary_lacks_or_that_are_the_same(evaluate, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("Ж\nЩ\n", encoding="utf-8")
    flags = ("--class-names", names, "--template", "a {}", "--template", "two {}")
    status, _, err, _ = evaluate("zero-shot", *flags)
    assert status == 0
    assert "4 of 4 prompts have pieces that the vocabulary lacks" in err
    assert "cannot tell apart: 'a Ж' = 'a Щ', 'two Ж' = 'two Щ'" in err


def test_retrieval_tells_the_time_that_it_takes(evaluate):
    status, out, err, results = evaluate("retrieval")
    assert status == 0
    assert "5 images x 4 different captions take about 0:00:0" in err
    assert "1 of 5 captions are longer than MAX_CAPTION_LENGTH (12) and were cut: 'a blue" in err
    assert results["image_to_text_recall_10"] == 100
    assert "image_to_text_less_prior_recall_1" in out
    assert "3 of 5 validation images" in evaluate("retrieval", "--pairs", 3)[2]


@pytest.mark.parametrize(
    ("protocol", "options", "flags"),
    [
        ("captioning", {"tokenize": "characters"}, ["--tokenize", "characters"]),
        ("zero-shot", {"template": "a {}", "batch_size": 2}, ["--template", "a {}"]),
        ("retrieval", {"pairs": 4, "seed": 3}, ["--pairs", 4, "--seed", 3]),
    ],
)
def test_python_gives_the_values_of_the_command(
    evaluate, data, captioning_model, protocol, options, flags
):
    found = virtex.evaluate(protocol, data, captioning_model, **options)
    assert {one.metric: one.value for one in found} == evaluate(protocol, *flags)[3]


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        ("captioning", {"pairs": 3}, "pairs is an option of retrieval, not captioning"),
        ("scenes", {"engine": "torch"}, "engine is an option of voc07, not scenes"),
        ("knn", {"images": 3, "tokenizer": "t"}, "not knn; images is an option of scenes, not knn"),
        ("zeroshot", {}, "the protocol is 'zeroshot'; expected one of knn,"),
    ],
)
def test_python_refuses_what_a_protocol_does_not_have(protocol, options, message):
    with pytest.raises(UserError, match=message):
        virtex.evaluate(protocol, "nowhere", "none.pth", **options)


def test_an_image_that_cannot_be_read_is_an_error_or_left_out(evaluate, data):
    bad = data / "val" / "circle" / "4.png"
    content = bad.read_bytes()
    bad.write_bytes(content[:100])
    try:
        for protocol in ("captioning", "zero-shot", "retrieval"):
            status, _, err, _ = evaluate(protocol)
            assert status == 2
            assert "4.png" in err
            assert "--on-bad-image skip" in err
            status, _, err, results = evaluate(protocol, "--on-bad-image", "skip")
            assert (status, bool(results)) == (0, True)
            assert "1 of 5 images cannot be read" in err
    finally:
        bad.write_bytes(content)


def test_missing_images_are_counted_before_the_model_is_loaded(evaluate, tmp_path):
    rows = "image,caption\n" + "".join(f"{number}.png,a ring\n" for number in range(7))
    (tmp_path / "val.csv").write_text(rows, encoding="utf-8")
    status, _, err, _ = evaluate("retrieval", "--data", tmp_path, model="nowhere.pth")
    assert status == 2
    assert "7 of 7 images do not exist" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("protocol", ["captioning", "zero-shot", "retrieval"])
def test_a_model_without_a_captioning_head_is_refused(evaluate, label_model, protocol):
    status, _, err, _ = evaluate(protocol, model=label_model)
    assert status == 2
    assert "was trained by token_classification: its head predicts labels instead of text" in err
    assert err.count("\n") == 1


def test_a_masked_model_is_refused(evaluate, tmp_path):
    model = saved(tmp_path, "MODEL.NAME", "masked_lm")
    status, _, err, _ = evaluate("retrieval", model=model)
    assert status == 2
    assert "fills in words from those on both sides, so it has no likelihood" in err


def test_parallel_captioning_has_a_head_from_left_to_right(evaluate, tmp_path):
    model = saved(tmp_path, "MODEL.NAME", "parallel_captioning")
    assert evaluate("retrieval", model=model)[0] == 0


@pytest.mark.parametrize(
    ("protocol", "arguments", "message"),
    [
        ("captioning", ["--pairs", "3"], "--pairs is an option of retrieval, not captioning"),
        ("retrieval", ["--template", "{}"], "--template is an option of zero-shot, not retrieval"),
        ("knn", ["--predictions", "p.jsonl"], "--predictions is an option of captioning, not knn"),
        ("retrieval", ["--image-size", "64"], "--image-size is an option of protocols on frozen"),
        ("retrieval", ["--pairs", "1"], "1 pair of an image and a caption is not enough"),
        ("zero-shot", ["--template", "a photo"], "'a photo' must have {} once"),
        ("zero-shot", ["--class-names", "none.txt"], "cannot read none.txt: No such file"),
        ("zero-shot", ["--data", "nowhere"], "nowhere: no such directory or table"),
        ("captioning", ["--data", "nowhere"], "--data nowhere: no such directory"),
        ("captioning", ["--predictions", "."], "--predictions . is a directory"),
        ("captioning", ["--checkpoint", "random"], "random is a backbone without a captioning"),
    ],
)
def test_wrong_input_is_one_line(evaluate, tmp_path, monkeypatch, protocol, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, err, results = evaluate(protocol, *arguments)
    assert (status, results) == (2, {})
    assert message in err
    assert err.count("\n") == 1


def test_most_images_with_one_caption_give_a_warning(evaluate, captioning_model, tmp_path):
    state = checkpoint.load(captioning_model)
    state["model"]["textual.visual_projection.weight"].zero_()
    checkpoint.save(tmp_path / "blind.pth", state)
    _, _, err, results = evaluate("captioning", model=tmp_path / "blind.pth")
    assert results["distinct_captions"] == 20
    assert results["most_frequent_caption"] == 100
    assert "warning: 1 of 5 captions are distinct" in err
    assert torch.isfinite(torch.tensor(list(results.values()))).all()
