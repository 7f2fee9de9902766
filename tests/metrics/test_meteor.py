"""METEOR against stand-ins that speak the protocol of meteor-1.5.jar.

With the jar itself it was tried by hand; see docs/metrics.md.
"""

import stat

import pytest

from virtex.errors import RunError, UserError
from virtex.metrics import caption_scores, scoring

PREDICTIONS = {2: "A cat sleeps.", 1: "A dog runs on grass."}
REFERENCES = {1: ["The dog is running.", "A dog runs."], 2: ["A cat sits on a mat."]}

# Counts the parts of each line, and scores an image by its number of references.
COUNTING = """
printf '%s\\n' "$*" > "$0.arguments"
total=0
while IFS= read -r line; do
    printf '%s\\n' "$line" >> "$0.lines"
    case $line in
        SCORE*) printf '%s\\n' "$line" | awk -F ' [|][|][|] ' '{ print NF - 2, 1.0 }' ;;
        EVAL*) printf '%s\\n' "$line" | awk -F ' [|][|][|] ' \\
            '{ for (n = 2; n <= NF; n++) { print $n / 10; s += $n / 10 } print s / (NF - 1) }' ;;
    esac
done
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write a shell script that is run in place of Java, and give its path and that of a jar."""

    def write(script):
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\n{script}")
        java.chmod(java.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(scoring, "find_java", lambda: str(java))
        jar = tmp_path / "meteor-1.5.jar"
        jar.touch()
        return java, jar

    return write


def test_captions_are_sent_as_tokens_and_scores_come_back_by_image(program):
    java, jar = program(COUNTING)
    scores = caption_scores(PREDICTIONS, REFERENCES, meteor_jar=jar)
    assert scores.per_image[1]["METEOR"] == 0.2
    assert scores.per_image[2]["METEOR"] == 0.1
    assert scores.corpus["METEOR"] == pytest.approx(0.15)
    assert "METEOR" not in scores.not_available
    arguments = java.with_suffix(".arguments").read_text().split()
    assert arguments == ["-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    first, second, last = java.with_suffix(".lines").read_text().splitlines()
    assert first == "SCORE ||| the dog is running ||| a dog runs ||| a dog runs on grass"
    assert second == "SCORE ||| a cat sits on a mat ||| a cat sleeps"
    assert last == "EVAL ||| 2 1 ||| 1 1"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'no main manifest attribute' >&2; exit 1", "no main manifest attribute"),
        ("while read -r line; do echo; done", "expected a line of statistics"),
        ("while read -r line; do echo words; done", "could not convert"),
        ("read -r line; echo 1", "meteor-1.5.jar does"),
    ],
)
def test_a_program_that_answers_otherwise_is_an_error(program, script, message):
    _, jar = program(script)
    with pytest.raises(RunError, match=message):
        caption_scores(PREDICTIONS, REFERENCES, meteor_jar=jar)


def test_without_java_or_a_jar_meteor_is_not_available(tmp_path, monkeypatch):
    scores = caption_scores(PREDICTIONS, REFERENCES)
    reason = "no meteor-1.5.jar was given; name it with --meteor-jar"
    assert scores.not_available["METEOR"] == reason
    monkeypatch.setattr(scoring, "find_java", lambda: None)
    jar = tmp_path / "meteor-1.5.jar"
    jar.touch()
    scores = caption_scores(PREDICTIONS, REFERENCES, meteor_jar=jar)
    assert "Java is required" in scores.not_available["METEOR"]
    assert "METEOR" not in scores.corpus


def test_a_jar_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no\.jar does not exist"):
        caption_scores(PREDICTIONS, REFERENCES, meteor_jar=tmp_path / "no.jar")


def test_meteor_is_for_english_alone(tmp_path):
    with pytest.raises(UserError, match="tokenizer ptb"):
        caption_scores(PREDICTIONS, REFERENCES, "characters", meteor_jar=tmp_path / "m.jar")
