"""YAML and flags become frozen dataclasses and back; what does not fit is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from rolecraft.errors import NotFound, SettingsError
from rolecraft.settings import from_dict, override, read_yaml, to_dict, write_yaml


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Sample:
    learning_rate: float = 1e-3
    epochs: int = 1
    shuffle: bool = True
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    words: tuple[str, ...] = ()
    steps: int | None = None
    target: str | tuple[str, ...] = "all"
    path: Path = Path("runs")
    inner: Inner = field(default_factory=Inner)
    rates: Mapping[str, float] = field(default_factory=dict)
    anything: Any = None


@dataclass(frozen=True)
class Needs:
    base: str


def refusal(data, kind=Sample, where=""):
    with pytest.raises(SettingsError) as caught:
        from_dict(kind, data, where)
    return str(caught.value)


def test_defaults_stand_where_nothing_is_said():
    assert from_dict(Sample, None) == from_dict(Sample, {}) == Sample()


def test_an_unknown_key_is_refused_with_the_nearest_name():
    assert refusal({"learning_rat": 1}, where="train") == (
        "unknown key 'learning_rat' in train. Did you mean 'learning_rate'?"
    )


def test_an_unknown_key_like_no_other_is_refused_with_all_names():
    assert refusal({"qqq": 1}, kind=Inner) == "unknown key 'qqq' in Inner. It has: depth."


def test_a_key_that_is_no_text_is_refused():
    assert "unknown key 3 in Inner" in refusal({3: 1}, kind=Inner)


def test_a_missing_key_is_named():
    assert "'base'" in refusal({}, kind=Needs)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"learning_rate": 2}, 2.0),
        ({"learning_rate": "1e-4"}, 1e-4),
        ({"epochs": 3}, 3),
        ({"shuffle": False}, False),
        ({"kind": "b"}, "b"),
        ({"words": ["a", "b"]}, ("a", "b")),
        ({"words": []}, ()),
        ({"steps": None}, None),
        ({"steps": 4}, 4),
        ({"target": "all"}, "all"),
        ({"target": ["q", "v"]}, ("q", "v")),
        ({"path": "a/b"}, Path("a/b")),
        ({"inner": {"depth": 3}}, Inner(3)),
        ({"rates": {"a": 0.5}}, {"a": 0.5}),
        ({"anything": [{"x": 1}]}, [{"x": 1}]),
    ],
)
def test_values_become_the_annotated_type(data, expected):
    value = getattr(from_dict(Sample, data), next(iter(data)))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"epochs": 1.5}, "Sample.epochs is 1.5 (float); expected int"),
        ({"epochs": True}, "Sample.epochs is True (bool); expected int"),
        ({"epochs": "3"}, "Sample.epochs is '3' (str); expected int"),
        ({"epochs": None}, "Sample.epochs is None (NoneType); expected int"),
        ({"learning_rate": True}, "Sample.learning_rate is True (bool); expected float"),
        ({"learning_rate": "fast"}, "Sample.learning_rate is 'fast' (str); expected float"),
        ({"shuffle": 1}, "Sample.shuffle is 1 (int); expected bool"),
        ({"shuffle": "yes"}, "Sample.shuffle is 'yes' (str); expected bool"),
        ({"name": 3}, "Sample.name is 3 (int); expected str"),
        ({"kind": "c"}, "Sample.kind is 'c'; it must be one of 'a', 'b'"),
        ({"words": ["a", 1]}, "Sample.words[1] is 1 (int); expected str"),
        ({"steps": "many"}, "Sample.steps is 'many' (str); expected int"),
        ({"inner": {"dept": 3}}, "unknown key 'dept' in Sample.inner. Did you mean 'depth'?"),
        ({"inner": {"depth": "3"}}, "Sample.inner.depth is '3' (str); expected int"),
    ],
)
def test_a_wrong_value_is_told_with_its_place_and_what_is_expected(data, message):
    assert refusal(data) == message


def test_a_value_that_fits_no_part_of_a_union_is_refused():
    assert refusal({"target": 3}).startswith("Sample.target is 3; expected")


def test_text_is_not_taken_apart_into_a_tuple():
    assert refusal({"words": "ab"}).startswith("Sample.words is 'ab' (str); expected")


@pytest.mark.parametrize("data", [3, "fast", ["epochs"]])
def test_a_section_that_is_no_mapping_is_refused(data):
    assert refusal(data, where="train") == f"train is {data!r} ({type(data).__name__}); expected keys with values"


def test_settings_survive_yaml(tmp_path):
    settings = Sample(learning_rate=1e-4, words=("a",), inner=Inner(7), path=Path("a/b"), target=("q", "v"))
    write_yaml(tmp_path / "s.yaml", {"train": to_dict(settings)})
    assert from_dict(Sample, read_yaml(tmp_path / "s.yaml")["train"]) == settings


def test_written_yaml_keeps_order_and_letters(tmp_path):
    write_yaml(tmp_path / "s.yaml", {"zeta": "größe", "alpha": 1})
    assert (tmp_path / "s.yaml").read_text(encoding="utf-8") == "zeta: größe\nalpha: 1\n"


def test_yaml_reads_1e_4_as_a_float(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("learning_rate: 1e-4\n")
    assert from_dict(Sample, read_yaml(path)).learning_rate == 1e-4


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    (tmp_path / "s.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "s.yaml") == {}


@pytest.mark.parametrize(("text", "reason"), [("a: [", "not valid YAML"), ("- a", "expected sections with keys")])
def test_a_bad_file_is_told_with_its_name(tmp_path, text, reason):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=reason) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


def test_an_absent_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no file"):
        read_yaml(tmp_path / "s.yaml")


def test_yaml_makes_no_objects(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(SettingsError, match="not valid YAML"):
        read_yaml(path)


def test_a_flag_reaches_values_at_any_depth_and_leaves_their_neighbours():
    data = {"data": {"options": {"open_words": 0.2, "weights": {"calc": 2}}}}
    changed = override(data, ["data.options.weights.hop=3"])
    assert changed == {"data": {"options": {"open_words": 0.2, "weights": {"calc": 2, "hop": 3}}}}
    assert data["data"]["options"]["weights"] == {"calc": 2}


def test_flags_override_values_and_make_sections():
    data = {"train": {"epochs": 1, "name": "x"}, "seed": 3}
    changed = override(data, ["train.epochs=5", "eval.n=7", "train.words=[a, b]", "train.name=a=b"])
    assert changed == {"train": {"epochs": 5, "name": "a=b", "words": ["a", "b"]}, "seed": 3, "eval": {"n": 7}}


def test_flags_leave_the_data_as_it_was():
    data = {"train": {"epochs": 1}}
    override(data, ["train.epochs=5"])
    assert data == {"train": {"epochs": 1}}


def test_a_later_flag_wins():
    assert override({}, ["a.b=1", "a.b=2"]) == {"a": {"b": 2}}


@pytest.mark.parametrize("flag", ["epochs=3", "train.epochs", "train.=3", "="])
def test_a_flag_that_cannot_be_read_is_named(flag):
    with pytest.raises(SettingsError, match=r"write it as section\.key=value"):
        override({}, [flag])


def test_a_flag_whose_value_is_no_yaml_is_named():
    with pytest.raises(SettingsError, match=r"cannot read override 'train.words=\[a'"):
        override({}, ["train.words=[a"])


def test_a_flag_into_a_value_is_refused():
    with pytest.raises(SettingsError, match="'seed' holds 3, not a section"):
        override({"seed": 3}, ["seed.x=1"])


def test_to_dict_is_plain_yaml():
    assert yaml.safe_load(yaml.safe_dump(to_dict(Sample(words=("a",)))))["words"] == ["a"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "-inf", "1e999", 10**400])
def test_a_rate_that_is_no_finite_number_is_refused(value):
    with pytest.raises(SettingsError, match=r"rate is .* \(.*\); expected a finite number") as caught:
        from_dict(_Rate, {"rate": value})
    assert len(str(caught.value)) < 300


def test_a_whole_number_too_long_to_write_is_told():
    with pytest.raises(SettingsError, match="rate is a whole number of 20001 bits"):
        from_dict(_Rate, {"rate": 1 << 20_000})


def test_a_value_is_quoted_in_an_error_as_far_as_it_is_short():
    with pytest.raises(SettingsError) as caught:
        from_dict(_Rate, {"rate": [["x" * 1000] * 1000] * 1000})
    assert len(str(caught.value)) < 500


@dataclass(frozen=True)
class _Rate:
    rate: float = 0.1
