"""The command line of `virtex pretrain`."""

import argparse
from pathlib import Path

import pytest

from virtex.commands import pretrain
from virtex.config.loading import load
from virtex.config.packaged import find
from virtex.config.schema import Config


@pytest.mark.parametrize(
    ("earlier", "flag"),
    [("--meet-within", "--rendezvous-timeout"), ("--stuck-after", "--watchdog-timeout")],
)
def test_a_renamed_flag_keeps_its_earlier_name_unseen(
    earlier: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = pretrain.parse(["--config", "a.yaml", earlier, "7"], {}, "")
    assert given == pretrain.parse(["--config", "a.yaml", flag, "7"], {}, "")
    assert given != pretrain.parse(["--config", "a.yaml"], {}, "")
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    shown = parser.format_help()
    assert flag in shown
    assert earlier not in shown
    with pytest.raises(SystemExit):
        parser.parse_args(["--config", "a.yaml", earlier, "0"])
    assert earlier in capsys.readouterr().err


def test_flags_of_the_layout_are_overrides_of_their_settings() -> None:
    words = ["--separator", ";", "--val-share", "0.1", "--image-column", "no: 1"]
    given = pretrain.parse(["--config", "a.yaml", "--config-override", "A", "1", *words], {}, "")
    assert given.config_override == [
        *("A", "1", "DATA.SEPARATOR", '";"', "DATA.VAL_SHARE", "0.1"),
        *("DATA.COLUMNS.IMAGE", '"no: 1"'),
    ]
    config = find(Path("base"))
    overrides = ["DATA.FORMAT", "table", *given.config_override[2:]]
    data = load(Config, config, overrides).data
    assert (data.separator, data.val_share, data.columns.image) == (";", 0.1, "no: 1")
