"""Laws of settings, on a small schema of the tests' own."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from virtex.config import loading as settings
from virtex.config import yaml12
from virtex.config.section import reports_conflicts
from virtex.errors import UserError


class Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=str.upper, validate_by_name=True
    )


class Engine(Part):
    power: float = Field(default=1.0, ge=0)
    cylinders: int = Field(default=4, gt=0, le=12)
    warmup_steps: int = 3
    electric: bool = False
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    spare: str | None = None
    radio: bool | Path = False

    @reports_conflicts
    def _conflicts(self):
        if self.electric and self.cylinders:
            yield ("ENGINE.ELECTRIC", "ENGINE.CYLINDERS"), "choose one"


class Car(Part):
    name: str
    color: Literal["red", "blue"] = "red"
    manual: Path = Path("manual.pdf")
    engine: Engine = Engine()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Loads `a.yaml` of this text, from a working directory where it has that short name."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str) -> Car:
        return settings.load(Car, write(Path("a.yaml"), text), overrides)

    return load


def problem(load, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(text, *overrides)
    return str(caught.value)


# Reading


def test_every_type_is_read_from_its_natural_yaml(load) -> None:
    text = """
NAME: beetle
COLOR: blue
MANUAL: docs/beetle.pdf
ENGINE: {POWER: 1e-3, CYLINDERS: 2, SIZES: [1, 2], PAIR: [0, .5], SPARE: ~}
"""
    engine = Engine(power=0.001, cylinders=2, sizes=(1, 2), pair=(0.0, 0.5))
    car = Car(name="beetle", color="blue", manual=Path("docs/beetle.pdf"), engine=engine)
    assert load(text) == car


def test_what_is_not_set_has_its_default(load) -> None:
    assert load("NAME: a") == Car(name="a")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-3", 1e-3), ("1E3", 1e3), ("+1.5e+2", 150.0), ("1.", 1.0), (".5", 0.5)],
        *[("-.inf", -float("inf")), ("010", 10), ("-7", -7), ("0x1F", 31), ("0o17", 15)],
        *[("True", True), ("FALSE", False), ("~", None), ("", None), ("null", None)],
        *[("yes", "yes"), ("off", "off"), ("1:30", "1:30"), ("2020-01-02", "2020-01-02")],
        *[("1_000", "1_000"), ("'1'", "1"), ("1e", "1e"), ("e3", "e3"), ("=", "="), ("<<", "<<")],
        *[("a::L1_H2", "a::L1_H2"), (".*x.(a|b).*", ".*x.(a|b).*"), ("[1, a]", [1, "a"])],
    ],
)
def test_plain_values_follow_yaml_1_2(text: str, value: object) -> None:
    read = yaml12.parse(text)
    assert read == value
    assert type(read) is type(value)


def test_anchors_repeat_a_value(load) -> None:
    assert load("NAME: &n a\nENGINE: {SPARE: *n}").engine.spare == "a"


def test_a_byte_order_mark_is_no_part_of_the_first_key(load) -> None:
    assert load("\ufeffNAME: a") == Car(name="a")


# Bases


def test_the_nearer_file_wins_key_by_key(tmp_path: Path) -> None:
    write(tmp_path / "root.yaml", "NAME: root\nENGINE: {POWER: 1.5, CYLINDERS: 6, SIZES: [1, 2]}")
    write(tmp_path / "sub/middle.yaml", "_BASE_: ../root.yaml\nENGINE: {SIZES: [3], POWER: 2}")
    top = write(tmp_path / "sub/deep/top.yaml", "_BASE_: ../middle.yaml\nENGINE: {POWER: 3}")
    engine = Engine(power=3.0, cylinders=6, sizes=(3,))
    assert settings.load(Car, top) == Car(name="root", engine=engine)


def test_a_base_alone_is_the_same_settings(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "NAME: a")
    child = write(tmp_path / "child.yaml", "_BASE_: base.yaml")
    assert settings.load(Car, child) == settings.load(Car, base)


def test_two_files_may_share_a_base_name(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "NAME: a")
    child = write(tmp_path / "sub/a.yaml", "_BASE_: ../a.yaml")
    assert settings.load(Car, child).name == "a"


def test_a_circle_of_bases_is_shown(load) -> None:
    write(Path("sub/b.yaml"), "_BASE_: ../a.yaml")
    assert problem(load, "_BASE_: sub/b.yaml") == (
        "_BASE_ forms a cycle: a.yaml -> sub/b.yaml -> a.yaml; remove _BASE_ from one of them"
    )


def test_a_file_that_is_its_own_base_is_a_circle(load) -> None:
    assert "a.yaml -> a.yaml" in problem(load, "_BASE_: a.yaml")


def test_a_missing_base_names_both_files(load) -> None:
    assert problem(load, "_BASE_: sub/b.yaml") == (
        "sub/b.yaml (named as _BASE_ by a.yaml) does not exist; check the path of the YAML file"
    )


@pytest.mark.parametrize("base", ["[b.yaml]", "3"])
def test_a_base_is_one_path(load, base: str) -> None:
    assert "in a.yaml; expected the path of one YAML file" in problem(load, f"_BASE_: {base}")


def test_a_mistake_is_blamed_on_the_file_that_made_it(load) -> None:
    write(Path("b.yaml"), "NAME: b\nENGINE: {POWER: -1, CYLINDERS: 99}")
    text = problem(load, "_BASE_: b.yaml\nENGINE: {CYLINDERS: 0}")
    assert "'ENGINE.POWER' is -1 in b.yaml; expected a number greater than or equal to 0" in text
    assert "'ENGINE.CYLINDERS' is 0 in a.yaml; expected a number greater than 0" in text


def test_a_mistake_below_a_correction_is_none(load) -> None:
    write(Path("b.yaml"), "NAME: b\nENGINE: {POWER: -1}")
    assert load("_BASE_: b.yaml\nENGINE: {POWER: 2}").engine.power == 2.0


# Overrides


def test_overrides_are_on_top_and_the_last_wins(load) -> None:
    car = load("NAME: a\nENGINE: {POWER: 2}", "ENGINE.POWER", "1e-3", "NAME", "b", "NAME", "c")
    assert car == Car(name="c", engine=Engine(power=0.001))


def test_override_values_are_yaml(load) -> None:
    overrides = ["ENGINE.SIZES", "[1, 2]", "NAME", "transdec_postnorm::L1_H64_A2_F256"]
    car = load("COLOR: red", *overrides, "ENGINE", "{CYLINDERS: 3}")
    assert car.name == "transdec_postnorm::L1_H64_A2_F256"
    assert car.engine == Engine(sizes=(1, 2), cylinders=3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["NAME"], "expected KEY VALUE pairs on the command line, but 'NAME' has no value"),
        (["NAME=a", "b"], "'NAME=a' on the command line is not the name of a setting"),
        (["--flag", "b"], "'--flag' on the command line is not the name of a setting"),
        (["NAME", "[a"], "'NAME' is '[a' on the command line, which is not valid YAML"),
        (["NAME", "*a"], "needs two pairs of quotes"),
        (["ENGINE.POWER", "x"], "'ENGINE.POWER' is 'x' on the command line; expected a number"),
        (
            ["NAME.X", "1"],
            "'NAME' is {\"X\": 1} on the command line; expected a string (not a section;",
        ),
        (["engine.power", "1"], "did you mean 'ENGINE.POWER'?"),
    ],
)
def test_a_bad_override_is_blamed_on_the_command_line(
    load, overrides: list[str], message: str
) -> None:
    assert message in problem(load, "NAME: a", *overrides)


def test_flat_settings_are_overrides(load) -> None:
    car = Car(name="a", engine=Engine(power=2.0, sizes=(3, 1)))
    flat = settings.flat(car)
    assert list(flat)[:4] == ["NAME", "COLOR", "MANUAL", "ENGINE.POWER"]
    overrides = [text for key, value in flat.items() for text in (key, json.dumps(value))]
    assert load("NAME: b", *overrides) == car


# Mistakes of value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CYLINDERS: '4'", "is '4' in a.yaml; expected an integer (remove the quotes)"),
        ("CYLINDERS: 2.5", "is 2.5 in a.yaml; expected an integer"),
        ("CYLINDERS: 4e0", "is 4.0 in a.yaml; expected an integer (write 4)"),
        ("CYLINDERS: true", "is true in a.yaml; expected an integer"),
        ("CYLINDERS:", "is empty in a.yaml; expected an integer"),
        ("CYLINDERS: 13", "is 13 in a.yaml; expected a number less than or equal to 12"),
        ("POWER: fast", "is 'fast' in a.yaml; expected a number"),
        ("POWER: '1e3'", "is '1e3' in a.yaml; expected a number (remove the quotes)"),
        ("POWER: false", "is false in a.yaml; expected a number"),
        ("ELECTRIC: 1", "is 1 in a.yaml; expected true or false"),
        ("ELECTRIC: yes", "is 'yes' in a.yaml; expected true or false"),
        ("SIZES: 3", "is 3 in a.yaml; expected a list"),
        ("SIZES: [1, x]", "'ENGINE.SIZES[1]' is 'x' in a.yaml; expected an integer"),
        ("PAIR: [1]", "is [1] in a.yaml; expected at least 2 items"),
        ("PAIR: [1, x]", "'ENGINE.PAIR[1]' is 'x' in a.yaml; expected a number"),
        ("PAIR: [1, 2, 3]", "is [1, 2, 3] in a.yaml; expected at most 2 items"),
        ("SPARE: 3", "is 3 in a.yaml; expected a string or null"),
        ("RADIO: 3", "is 3 in a.yaml; expected true or false or a string"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(load, line: str, message: str) -> None:
    text = problem(load, f"NAME: a\nENGINE:\n  {line}")
    assert text.startswith(f"'ENGINE.{line.split(':')[0]}")
    assert message in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NAME: 3", "'NAME' is 3 in a.yaml; expected a string (put it in quotes)"),
        ("NAME: {'a: b': 1}", "expected a string (not a section; text with a colon needs quotes)"),
        ("COLOR: green\nNAME: a", "is 'green' in a.yaml; expected 'red' or 'blue'"),
        ("COLOR: red", "'NAME' is not set in a.yaml; it is required"),
        ("NAME: a\nENGINE: 3", "'ENGINE' is 3 in a.yaml; expected a section of settings"),
        ("NAME: a\nENGINE:", "'ENGINE' is empty in a.yaml; expected a section of settings"),
        ("NAME: a\nMANUAL: 3", "'MANUAL' is 3 in a.yaml; expected a string"),
    ],
)
def test_a_wrong_value_at_the_top_is_refused(load, text: str, message: str) -> None:
    assert message in problem(load, text)


def test_keys_that_do_not_fit_are_told_with_their_origins(load) -> None:
    assert problem(load, "NAME: a", "ENGINE.ELECTRIC", "true") == (
        "'ENGINE.ELECTRIC' is true on the command line and 'ENGINE.CYLINDERS' is 4 by default; "
        "choose one"
    )


def test_conflicts_of_the_schema_and_of_a_check_are_reported_together(tmp_path: Path) -> None:
    def check(car: Car):
        if car.name == "a":
            yield ("NAME", "COLOR"), "choose another name"

    path = write(tmp_path / "a.yaml", "NAME: a\nENGINE: {ELECTRIC: true}")
    with pytest.raises(UserError) as caught:
        settings.load(Car, path, check=check)
    assert str(caught.value).splitlines() == [
        "2 problems:",
        f"  'ENGINE.ELECTRIC' is true in {path} and 'ENGINE.CYLINDERS' is 4 by default; choose one",
        f"  'NAME' is 'a' in {path} and 'COLOR' is 'red' by default; choose another name",
    ]
    with pytest.raises(UserError, match=r"'NAME' is 'a' .*; choose another name$"):
        settings.load(Car, path, ["ENGINE.ELECTRIC", "false"], check=check)
    assert settings.load(Car, path, ["NAME", "b", "ENGINE.ELECTRIC", "false"], check=check)


def test_a_wrong_value_does_not_hide_a_conflict_of_another_section(load) -> None:
    text = problem(load, "NAME: a\nCOLOR: green\nENGINE: {ELECTRIC: true}")
    assert text.startswith("2 problems:")
    assert "'COLOR' is 'green'" in text
    assert text.endswith("; choose one")


def test_a_long_value_is_cut(load) -> None:
    assert len(problem(load, f"NAME: a\nCOLOR: {'x' * 9999}")) < 250


# Unknown keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "NAME: a\nENGINE: {WARMPU_STEPS: 3}",
            "unknown setting 'ENGINE.WARMPU_STEPS' in a.yaml; did you mean 'ENGINE.WARMUP_STEPS'?",
        ),
        (
            "NAME: a\nENGIN: {POWER: 1, CYLINDERS: 2}",
            "unknown setting 'ENGIN' in a.yaml; did you mean 'ENGINE'?",
        ),
        ("NAME: a\nPOWER: 1", "unknown setting 'POWER' in a.yaml; did you mean 'ENGINE.POWER'?"),
        ("NAME: a\nengine: {power: 1}", "'engine.power' in a.yaml; did you mean 'ENGINE.POWER'?"),
        ("NAME: a\n_BASE: b.yaml", "unknown setting '_BASE' in a.yaml; did you mean '_BASE_'?"),
        (
            "NAME: a\nZZZ: 1",
            "unknown setting 'ZZZ' in a.yaml; the settings are NAME, COLOR, MANUAL, ENGINE",
        ),
        (
            "NAME: a\nENGINE: {ZZZ: 1}",
            "unknown setting 'ENGINE.ZZZ' in a.yaml; the settings in 'ENGINE' are POWER, CYLINDERS,"
            " WARMUP_STEPS, ELECTRIC, SIZES, PAIR, SPARE, RADIO",
        ),
    ],
)
def test_an_unknown_key_brings_the_nearest(load, text: str, message: str) -> None:
    assert message in problem(load, text)


def test_all_problems_are_told_at_once(load) -> None:
    text = problem(load, "COLOR: green\nENGINE: {POWER: x, CYLINDERS: 0}\nNAM: b", "MANUAL", "1")
    lines = text.splitlines()
    assert lines[0] == "6 problems:"
    assert len(lines) == 7
    for key in ("'NAME'", "'COLOR'", "'ENGINE.POWER'", "'ENGINE.CYLINDERS'", "'NAM'", "'MANUAL'"):
        assert sum(key in line.split(";")[0] for line in lines) == 1


# Files that are no settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.yaml is empty; expected settings"),
        ("# only words\n", "a.yaml is empty"),
        ("- 1", "a.yaml holds a list; expected settings"),
        ("words", "a.yaml holds a single value; expected settings"),
        ("NAME: a\nNAME: b", "a.yaml is not valid YAML, line 2, column 1: the key 'NAME' is given"),
        ("NAME: a\nENGINE:\n  POWER: 1\n  POWER: 1", "line 4, column 3: the key 'POWER' is given"),
        ("1: a", "line 1, column 1: the key 1 is not a string"),
        ("? [a]\n: b", "the key ['a'] is not a string"),
        ("NAME: [", "a.yaml is not valid YAML, line 1, column 8"),
        ("NAME: a\n\tX: 1", "line 2, column 1"),
        ("NAME: a\n  X: 1", "line 2, column 4: mapping values are not allowed here"),
        ("NAME: !!python/object/apply:os.system [ls]", "the tag '!!python/object/apply:os.system'"),
        ("NAME: !!str a", "the tag '!!str' is not allowed in settings; write a plain value"),
        ("NAME: !x a", "the tag '!x' is not allowed"),
        ("NAME: a\n--- \nNAME: b", "line 2, column 1: expected a single document"),
        ("NAME: &a {X: *a}", "line 1, column 7: found unconstructable recursive node"),
        ("NAME: &a [*a]", "line 1, column 7: found unconstructable recursive node"),
        ("NAME: a\nX: \0", "line 2, column 4: character U+0000 is not allowed"),
        ('NAME: "\\ud800"', "line 1, column 7: half of a surrogate pair"),
        (f"NAME: {'9' * 5000}", "line 1, column 7: the number has too many digits"),
        (f"NAME: 0x{'9' * 4000}", "line 1, column 7: the number has too many digits"),
        ('NAME: "a\\0b"', "line 1, column 7: the character U+0000 is not allowed"),
        ("[" * 5000, "nested too deeply"),
        ("X: " + "[" * 100 + "]" * 100, "nested too deeply"),
        ("X: " + "{a: " * 100 + "}" * 100, "nested too deeply"),
        ("- " * 500 + "a", "nested too deeply"),
        ("#" * (2 << 20), "a.yaml is larger than 1 MB; check the path of the YAML file"),
        (
            "a0: &a0 [1, 1]\n"
            + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 19)),
            "its aliases (*name) expand to more than 100000 values",
        ),
    ],
)
def test_malformed_yaml_is_placed(load, text: str, message: str) -> None:
    assert message in problem(load, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, message in {
        tmp_path: "Is a directory; check the path of the YAML file",
        tmp_path / "none.yaml": "does not exist; check the path of the YAML file",
        tmp_path / "file" / "x.yaml": "cannot read",
    }.items():
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            settings.load(Car, path)
        assert str(path) in str(caught.value)


def test_a_long_chain_of_bases_is_refused(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"_BASE_: {number + 1}.yaml")
    with pytest.raises(UserError, match=r"31\.yaml lies below 31 files, .* at most 30"):
        settings.load(Car, tmp_path / "0.yaml")


def test_links_that_lead_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "b.yaml")
    (tmp_path / "b.yaml").symlink_to(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("_BASE_: a.yaml")
    with pytest.raises(UserError, match=r"cannot read .*symbolic links"):
        settings.load(Car, tmp_path / "c.yaml")


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("_BASE_: /dev/zero")
    with pytest.raises(UserError, match=r"/dev/zero \(named as _BASE_ by .*\) is larger than 1 MB"):
        settings.load(Car, tmp_path / "a.yaml")


def test_of_very_many_mistakes_some_are_told(load) -> None:
    lines = problem(load, "".join(f"KEY{number}: 1\n" for number in range(1000)))
    assert "unknown setting 'KEY0'" in lines
    assert lines.endswith("more")
    assert len(lines.splitlines()) < 60


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"NAME: caf\xe9")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 0xe9 at position 9\)"):
        settings.load(Car, path)


# Laws over many inputs

# Through functions, because hypothesis would take the aliases for further arguments.
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
engines = st.builds(
    lambda **fields: Engine(**fields),
    power=st.floats(0, allow_infinity=False),
    cylinders=st.integers(1, 12),
    warmup_steps=st.integers(),
    sizes=st.lists(st.integers(1)).map(tuple),
    pair=st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.just(0.5)),
    spare=st.none() | words,
    radio=st.booleans() | st.text("abc/.~: #1").map(Path),
)
tricky = st.sampled_from(
    ["1e-3", "yes", "null", "", "~", "1:30", "2020-01-02", "0o7", "- a", "a: b", " a ", "# a", "|"]
)
cars = st.builds(
    lambda **fields: Car(**fields),
    name=words | tricky,
    color=st.sampled_from(["red", "blue"]),
    manual=st.text("abc/.~: #1").map(Path),
    engine=engines,
)


@given(cars)
def test_dump_loads_back_equal(tmp_path_factory: pytest.TempPathFactory, car: Car) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(settings.dump(car), encoding="utf-8", newline="")
    assert settings.load(Car, path) == car


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["X"]), inner),
    max_leaves=8,
)
keys = st.sampled_from(["NAME", "COLOR", "MANUAL", "ENGINE", "ENGIN", "", "ENGINE.POWER"])
engine_keys = st.sampled_from(
    ["POWER", "CYLINDERS", "SIZES", "PAIR", "ELECTRIC", "SPARE", "RADIO", "P"]
)


@given(st.dictionaries(keys, plain, min_size=1), st.none() | st.dictionaries(engine_keys, plain))
def test_any_mistake_is_told_in_words_for_users(
    tmp_path_factory: pytest.TempPathFactory,
    values: dict[str, object],
    engine: dict[str, object] | None,
) -> None:
    values |= {} if engine is None else {"ENGINE": engine}
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml12.write(values), encoding="utf-8", newline="")
    try:
        settings.load(Car, path)
    except UserError as error:
        names = re.sub(r"(['\"{\[]).*(?=; expected)", "", str(error))
        assert not re.search(r"pydantic|http|Input|type=", names)


@given(st.binary(max_size=60))
def test_any_bytes_are_settings_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError):
        settings.load(Car, path)


@given(st.text("[]{}:,-?&*!|>'\"#%@`\n aA1.~\t", max_size=40))
def test_any_yaml_characters_are_settings_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        settings.load(Car, path)
