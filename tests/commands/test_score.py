import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from virtex.cli import main
from virtex.metrics import caption_scores

METRICS = os.environ.get("VIRTEX_METRICS")
PREDICTIONS = {42: "a red dog runs", 7: "a black cat sleeps on a mat"}
REFERENCES = {
    42: ["A red dog runs.", "The dog is running"],
    7: ["A cat is sleeping on a mat", "A cat, black, on a mat"],
}
RESULTS = [{"image_id": image, "caption": text} for image, text in PREDICTIONS.items()]
COCO = {
    "images": [
        {"id": 42, "file_name": "COCO_val2014_000000000042.jpg"},
        {"id": 7, "file_name": "COCO_val2014_000000000007.jpg"},
    ],
    "annotations": [
        {"image_id": image, "id": n, "caption": text}
        for image, texts in REFERENCES.items()
        for n, text in enumerate(texts)
    ],
}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(names, rows, separator=","):
    return "\n".join(separator.join(f'"{cell}"' for cell in row) for row in [names, *rows])


def by_path(prefix):
    """What `virtex caption` writes, best captions first."""
    return [
        {
            "path": f"{prefix}{image:012d}.jpg",
            "captions": [{"text": text, "score": -1.5}, {"text": "other", "score": -2.0}],
        }
        for image, text in PREDICTIONS.items()
    ]


def write(directory, name, content):
    path = directory / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def score(*arguments):
    return main(["score", *map(str, arguments)])


@pytest.fixture
def references(tmp_path):
    return write(tmp_path, "references.json", COCO)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", RESULTS),
        ("p.jsonl", lines(RESULTS)),
        ("p.jsonl", lines({**row, "image_id": str(row["image_id"])} for row in RESULTS)),
        ("p.csv", table(("image_id", "caption"), PREDICTIONS.items())),
        ("p.tsv", table(("caption", "image_id"), [x[::-1] for x in PREDICTIONS.items()], "\t")),
        ("p.json", by_path("val/COCO_val2014_")),
        ("p.jsonl", lines(by_path("elsewhere/"))),
        (
            "p.csv",
            table(
                ("path", "caption", "score", "error"),
                [(f"{image:012d}.jpg", text, -1.5, "") for image, text in PREDICTIONS.items()],
            ),
        ),
    ],
    ids=str,
)
def test_all_kinds_of_predictions_give_the_same_scores(tmp_path, references, name, content):
    output = tmp_path / "new" / "scores.json"
    assert score(write(tmp_path, name, content), references, "--output", output) == 0
    written = json.loads(output.read_text())
    expected = caption_scores(PREDICTIONS, REFERENCES)
    assert written["scores"] == dict(expected.corpus)
    assert (written["images"], written["references"], written["tokenize"]) == (2, 4, "ptb")
    assert "meteor-1.5.jar" in written["not_available"]["METEOR"]
    assert written["ngram_matches"] == list(expected.bleu_counts.matches)


ROWS = [(image, text) for image, texts in REFERENCES.items() for text in texts]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.json", {"annotations": COCO["annotations"]}),
        ("r.jsonl", lines({"image_id": image, "caption": text} for image, text in ROWS)),
        ("r.jsonl", lines({"image_id": i, "captions": texts} for i, texts in REFERENCES.items())),
        ("r.csv", table(("image_id", "caption"), ROWS)),
        ("r.tsv", table(("image_id", "caption"), ROWS, "\t")),
    ],
    ids=str,
)
def test_all_kinds_of_references_give_the_same_scores(tmp_path, name, content):
    predictions = write(tmp_path, "p.json", RESULTS)
    output = tmp_path / "scores.json"
    assert score(predictions, write(tmp_path, name, content), "--output", output) == 0
    expected = caption_scores(PREDICTIONS, REFERENCES)
    assert json.loads(output.read_text())["scores"] == dict(expected.corpus)


def test_references_of_a_table_of_image_files_are_found_by_file_name(tmp_path):
    rows = [(f"images/dog {image}.png", text) for image, text in ROWS]
    references = write(tmp_path, "val.csv", table(("image", "caption"), rows))
    found = [
        {"path": f"/data/images/dog {image}.png", "captions": [{"text": text}]}
        for image, text in PREDICTIONS.items()
    ]
    per_image = tmp_path / "images.jsonl"
    predictions = write(tmp_path, "p.jsonl", lines(found))
    assert score(predictions, references, "--per-image", per_image) == 0
    first = json.loads(per_image.read_text().splitlines()[0])
    assert first["image_id"] == "images/dog 42.png"


def test_scores_are_printed_and_written_for_each_image(tmp_path, references, capsys):
    per_image = tmp_path / "images.jsonl"
    predictions = write(tmp_path, "p.json", RESULTS)
    assert score(predictions, references, "--per-image", per_image) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^images +2 with 4 references$", printed, re.MULTILINE)
    expected = caption_scores(PREDICTIONS, REFERENCES)
    for name, value in expected.corpus.items():
        assert re.search(rf"^{name} +{value:.4f}$", printed, re.MULTILINE)
    assert re.search("^METEOR +not available: ", printed, re.MULTILINE)
    rows = [json.loads(line) for line in per_image.read_text().splitlines()]
    assert rows == [{"image_id": n, **expected.per_image[n]} for n in PREDICTIONS]


def test_a_subset_is_scored_only_when_asked_for(tmp_path, references, capsys):
    predictions = write(tmp_path, "p.json", RESULTS[:1])
    assert score(predictions, references) == 2
    message = capsys.readouterr().err
    assert "no prediction for 1 of 2 images" in message
    assert "--subset" in message
    assert score(predictions, references, "--subset") == 0
    assert "1 with 2 references" in capsys.readouterr().out


def test_an_image_that_could_not_be_read_is_missing(tmp_path, references, capsys):
    rows = [*by_path("")[:1], {"path": "000000000007.jpg", "error": "not an image"}]
    assert score(write(tmp_path, "p.jsonl", lines(rows)), references) == 2
    assert "no prediction for 1 of 2 images" in capsys.readouterr().err


def test_a_prediction_without_words_is_a_warning(tmp_path, references, capsys):
    rows = [RESULTS[0], {"image_id": 7, "caption": " . "}]
    assert score(write(tmp_path, "p.json", rows), references) == 0
    assert "predictions without words: 7 (1 in all)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.json", [], "p.json holds no captions"),
        ("p.json", "", "p.json is not well-formed JSON"),
        ("p.json", "[1,", "p.json is not well-formed JSON"),
        ("p.json", "3", "expected a list, not 3"),
        ("p.json", [3], "list item 1: expected an object"),
        ("p.json", {"captions": []}, "expected a list of captions, .* an object with 'captions'"),
        ("p.json", [{"caption": "a"}], "item 1 has no 'image_id'.* only 'caption'"),
        ("p.json", [{"image_id": 42}], "item 1 has no 'caption', only 'image_id'"),
        ("p.json", [{"image_id": 4.5, "caption": "a"}], "whole number or text, not 4.5"),
        ("p.json", [{"image_id": 42, "caption": None}], "must be text or a list of texts"),
        ("p.json", [*RESULTS, RESULTS[0]], "several predictions for images 42;"),
        (
            "p.json",
            [{**RESULTS[0], "caption": " "}, RESULTS[1]],
            "a blank prediction: .?42.? .1 in all",
        ),
        ("p.json", [{**RESULTS[0], "image_id": 9}], r"does not have \(images 9; .* 42, 7\)"),
        ("p.jsonl", "\n\n", "p.jsonl holds no captions"),
        ("p.jsonl", '{"image_id": 42, "caption": "a"}\n{', "line 2 is not well-formed JSON"),
        ("p.csv", "image_id,caption\n42,a,b\n", "line 2: the row has 3 values for 2 columns"),
        ("p.csv", "", "p.csv holds no captions"),
        ("p.csv", "id,words\n1,a\n", "line 2 has no 'image_id'"),
        ("p.txt", "a dog", r"must end in \.json, \.jsonl, \.csv, \.tsv"),
        ("none.json", None, "cannot read .*none.json: No such file"),
    ],
)
def test_wrong_predictions_are_one_line_and_status_2(
    tmp_path, references, capsys, name, content, reason
):
    path = tmp_path / name
    if content is not None:
        write(tmp_path, name, content)
    output = tmp_path / "scores.json"
    assert score(path, references, "--output", output) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("virtex score: error: ")
    assert re.search(reason, line)
    assert not output.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"images": [], "annotations": []}, "references.json holds no captions"),
        ({"annotations": {}}, "expected a list 'annotations'"),
        ({"annotations": [{"image_id": 42, "caption": ""}, *COCO["annotations"]]}, "a blank ref"),
    ],
)
def test_wrong_references_are_one_line_and_status_2(tmp_path, capsys, content, reason):
    predictions = write(tmp_path, "p.json", RESULTS)
    assert score(predictions, write(tmp_path, "references.json", content)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(reason, line)


def test_an_output_never_overwrites_an_input(tmp_path, references, capsys):
    predictions = write(tmp_path, "p.json", RESULTS)
    before = predictions.read_bytes()
    for flags in (["--output", predictions], ["--per-image", references]):
        assert score(predictions, references, *flags) == 2
        assert "already the name of another file" in capsys.readouterr().err
    assert score(predictions, references, "--output", tmp_path) == 2
    assert "is a directory" in capsys.readouterr().err
    assert predictions.read_bytes() == before


@pytest.mark.skipif(METRICS is None, reason="VIRTEX_METRICS names no directory")
def test_real_captions_have_the_published_scores(tmp_path):
    output = tmp_path / "scores.json"
    files = [Path(METRICS, name) for name in ("hypotheses_973.json", "references_973.json")]
    assert score(*files, "--output", output) == 0
    scores = json.loads(output.read_text())["scores"]
    expected = json.loads(Path(METRICS, "expected.json").read_text())
    published = expected["references_973.json + hypotheses_973.json"]["published_three_decimals"]
    del published["METEOR"]
    assert {name: round(value, 3) for name, value in scores.items()} == published


@pytest.mark.cold
def test_help_imports_nothing_heavy():
    code = (
        "import sys, virtex.commands.score as command, argparse\n"
        "command.add_arguments(argparse.ArgumentParser())\n"
        "assert not {'torch', 'cv2', 'numpy', 'virtex.metrics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv"])
def test_what_virtex_caption_writes_is_scored(tmp_path, captioning_model, pictures, ending):
    predictions = tmp_path / f"p.{ending}"
    words = ["caption", pictures, "--checkpoint", captioning_model, "--output", predictions]
    assert main([*map(str, words), "--max-length", "6", "--quiet"]) == 0
    rows = [(f"{n}.png", "a dog runs on grass") for n in range(5)]
    references = write(tmp_path, "val.csv", table(("image", "caption"), rows))
    per_image = tmp_path / "images.jsonl"
    assert score(predictions, references, "--per-image", per_image) == 0
    images = [json.loads(line)["image_id"] for line in per_image.read_text().splitlines()]
    assert images == [f"{n}.png" for n in range(5)]
