"""The command line of `virtex pretrain`."""

import argparse

import pytest

from virtex.commands import pretrain


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
