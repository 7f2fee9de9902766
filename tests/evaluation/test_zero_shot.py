import numpy as np
import pytest

from virtex.data.sources.labelled import LabelledData, LabelledImages
from virtex.errors import UserError
from virtex.evaluation.zero_shot import read_class_names, zero_shot

DATA = LabelledData(
    "imagefolder",
    root=None,
    classes=("n01", "n02", "n03"),
    train=LabelledImages((), np.zeros(0, np.int64)),
    test=LabelledImages((), np.zeros(0, np.int64)),
)


def test_the_prior_takes_the_advantage_of_a_likely_name_away():
    """All raw scores prefer class 0; less their means, each image has its own class."""
    scores = np.array([[-1.0, -5.0], [-1.0, -5.0], [-2.0, -4.0], [-2.0, -4.0]])
    figures = zero_shot(scores, np.array([0, 0, 1, 1]), ["a {}"])
    assert {figure.metric: figure.value for figure in figures} == {
        "top1": 50,
        "balanced_accuracy": 50,
        "top1_less_prior": 100,
        "balanced_accuracy_less_prior": 100,
    }
    assert figures[0].settings["templates"] == ("a {}",)


def test_class_names_are_a_name_a_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("golden retriever\ncrane \nété\n\n", encoding="utf-8")
    assert read_class_names(path, DATA) == ["golden retriever", "crane", "été"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", r"has 2 names for 3 classes; .* in the order of the classes: n01, n02, n03"),
        ("a\n\nb\nc\n", r"line 2 is blank"),
        ("", r"has 0 names for 3 classes"),
    ],
)
def test_names_that_do_not_fit_the_classes_are_refused(tmp_path, text, message):
    path = tmp_path / "names.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_class_names(path, DATA)
