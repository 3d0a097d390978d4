"""JSON and YAML from others' hands: what would be taken silently, or never end, is refused with file and reason."""

from __future__ import annotations

import time

import pytest

from rolecraft.contract import read as read_contract
from rolecraft.errors import ContractError, SettingsError
from rolecraft.parsing import load_yaml, read_json, read_text
from rolecraft.settings import read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('!!int ""', "'' is no int"),
        ('!!int "_"', "'_' is no int"),
        ("!!bool x", "'x' is no bool"),
        ("!!float ''", "'' is no float"),
        ('!!timestamp "x"', "'x' is no timestamp"),
        ("2024-99-99", "'2024-99-99' is no timestamp"),
    ],
)
def test_a_value_that_is_not_what_it_is_said_to_be_is_told_by_file_and_line(tmp_path, value, told):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"a: 1\nseed: {value}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=rf"recipe\.yaml: not valid YAML: line 2: {told}"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' stands in line 1 already; keep one"),
        ("s:\n  k: 1\n  k: 1\n", "line 3: key 'k' stands in line 2 already"),
        ("a: .nan\n", "nan is no number that can be used; write a finite one"),
        ("a: {b: [1, -.inf]}\n", "-inf is no number that can be used"),
        (BOMB, "its aliases stand for more than 100,000 values; write out what is meant"),
        ("a: &a [*a]\n", "line 1: a value that holds itself"),
        ("a: " + "[" * 200 + "]" * 200, "line 1: values nested more than 64 deep"),
        ("a: " + "[" * 100_000, "nested too deeply|not valid|nested"),
        ("? [1, 2]\n: 3\n", "a key that is a list or a mapping"),
        ("a: !!python/object/apply:os.system [echo]\n", "could not determine a constructor"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: [1\n", "not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("a: 2024-99-99\n", "line 1: .*month must be in 1..12"),
    ],
    ids=lambda value: value[:30],
)
def test_yaml_is_refused_by_file_and_reason(tmp_path, text, told):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=told) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 600


def test_aliases_are_fine_where_they_stand_for_little(tmp_path):
    assert load_yaml("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}\n") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }
    assert load_yaml("") is None


def test_an_alias_bomb_is_refused_at_once():
    began = time.monotonic()
    with pytest.raises(ValueError, match="aliases"):
        load_yaml(BOMB)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "a": 2}', "key 'a' stands there twice; keep one"),
        ('{"a": NaN}', "NaN is no number that can be used"),
        ('{"a": [-Infinity]}', "-Infinity is no number that can be used"),
        ('{"a": 1e999}', "1e999 is no number that can be used"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "values nested more than 64 deep"),
        ('{"a": ' * 100_000, "values nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "4300 digits"),
        ("", "Expecting value"),
        ("[1]", "holds list; expected an object with keys"),
    ],
    ids=lambda value: value[:30],
)
def test_json_is_refused_by_file_and_reason(tmp_path, text, told):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=told) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path))


def test_other_bytes_than_text_are_told(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: \xff\n")
    for read in (read_yaml, read_json, read_text):
        with pytest.raises(SettingsError, match=r"x\.yaml: byte 3 is not UTF-8; save the file as UTF-8 text"):
            read(path)
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_text(tmp_path)


@pytest.mark.parametrize(
    "text",
    ['{"a": ' * 100_000, '{"base": NaN}', '{"base": "a", "base": "b"}', "\udcff"],
    ids=lambda value: ascii(value[:20]),
)
def test_a_contract_from_others_hands_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "contract.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ContractError, match=r"contract\.json: not a contract \(.*restore the file"):
        read_contract(tmp_path)
