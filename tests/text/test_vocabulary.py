import pytest

from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer, train
from virtex.text.vocabulary import Categories, check_categories, check_tokenizer

TOKENIZER = Tokenizer.from_bytes(train(["a red circle", "a blue square"], 25))
FIGURES = {
    **{"vocab_size": 25, "unk_index": 0, "sos_index": 1, "eos_index": 2, "mask_index": 3},
    "text_normalization": "published",
}


def test_figures_that_agree_pass():
    check_tokenizer(TOKENIZER, source="v.model", **FIGURES)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_that_disagrees_is_named_with_both_sides(figure):
    wrong = FIGURES | {figure: 999}
    both = rf"v\.model: DATA\.{figure.upper()} is 999, but the file's is {FIGURES[figure]}\."
    with pytest.raises(UserError, match=both):
        check_tokenizer(TOKENIZER, source="v.model", **wrong)


def test_all_disagreements_are_named_at_once():
    with pytest.raises(UserError, match=r"VOCAB_SIZE.*EOS_INDEX"):
        check_tokenizer(TOKENIZER, source="v.model", **FIGURES | {"vocab_size": 5, "eos_index": 9})


def test_categories_count_with_the_background():
    categories = Categories(("cat", "dog"))
    check_categories(categories, source="in a.json", vocab_size=3)
    with pytest.raises(UserError, match="is 2, but there are 2 categories in a"):
        check_categories(categories, source="in a.json", vocab_size=2)
