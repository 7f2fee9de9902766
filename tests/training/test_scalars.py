from contextlib import closing

import pytest

from virtex.training.logger import RunLogger
from virtex.training.scalars import SCALARS, LastScalars, last_scalars


@pytest.fixture
def path(tmp_path):
    """The scalars that a logger has written of two iterations."""
    with closing(RunLogger(tmp_path, rank=0, first=1)) as logger:
        logger.log_scalars(1, {"train/loss": 3.0, "learning_rate/visual": 1})
        logger.log_scalars(1, {"val/loss": 4.0})
        logger.log_scalars(2, {"train/loss": float("inf")})
    return tmp_path / SCALARS


LAST = {"train/loss": float("inf"), "learning_rate/visual": 1, "val/loss": 4.0}


def test_the_last_value_of_every_name_counts(path):
    assert last_scalars(path) == LastScalars(2, LAST)


def test_a_run_that_has_logged_nothing_has_no_values(tmp_path):
    assert last_scalars(tmp_path / SCALARS) == LastScalars(0, {})


def test_a_line_that_is_still_written_does_not_count_yet(path):
    with path.open("a") as file:
        file.write('{"iteration": 3, "train/loss": 1.5')
    assert last_scalars(path) == LastScalars(2, LAST)


@pytest.mark.parametrize(
    "line",
    ["{", "7", "{}", '{"iteration": 3.0}', '{"iteration": 3, "x": "1"}', '{"iteration": 3}}'],
)
def test_nothing_counts_from_a_line_on_that_cannot_be_read(path, line):
    with path.open("a") as file:
        file.write(f'{line}\n{{"iteration": 4, "train/loss": 1.0}}\n')
    assert last_scalars(path) == LastScalars(2, LAST, unreadable=4)
