"""`virtex config` as a user calls it."""

import json
from pathlib import Path

import pytest

from virtex.cli import main
from virtex.config import loading as settings
from virtex.config.schema import Config


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("OPTIM: {BATCH_SIZE: 64}")
    Path("a.yaml").write_text("_BASE_: base.yaml\nAMP: false")
    return "a.yaml"


def test_the_printed_yaml_repeats_the_run(
    config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", config_file, "OPTIM.LR", "1e-4", "OPTIM.CNN_LR", "0"]) == 0
    Path("resolved.yaml").write_text(capsys.readouterr().out)
    config = settings.load(Config, Path("resolved.yaml"))
    assert config == settings.load(
        Config, Path(config_file), ["OPTIM.LR", "1e-4", "OPTIM.CNN_LR", "0"]
    )
    assert (config.amp, config.optim.batch_size, config.optim.lr) == (False, 64, 1e-4)


def test_the_schema_knows_the_keys_and_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--json-schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert list(schema["properties"])[:2] == ["_BASE_", "RANDOM_SEED"]
    rate = schema["$defs"]["Optim"]["properties"]["CNN_LR"]
    assert rate["type"] == "number"
    assert rate["minimum"] == 0
    assert "backbone" in rate["description"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a FILE with the YAML configuration"),
        (["a.yaml", "--json-schema"], "FILE and --json-schema do not go together"),
        (["none.yaml"], "none.yaml does not exist; check the path of the YAML file"),
        (["a.yaml", "AMP"], "'AMP' has no value"),
        (["a.yaml", "OPTIM.LR", "-1"], "'OPTIM.LR' is -1 on the command line; expected a number"),
        (["a.yaml", "OPTIM.WARMPU_STEPS", "1"], "did you mean 'OPTIM.WARMUP_STEPS'?"),
        (["a.yaml", "MODEL.TEXTUAL.NAME", "none"], "expected a textual head such as"),
    ],
)
def test_a_mistake_ends_with_its_remedy_and_no_traceback(
    config_file: str,  # noqa: ARG001 - makes a.yaml
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("virtex config: error: ")
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
