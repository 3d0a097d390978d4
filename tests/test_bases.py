"""Bases and adapters are found by name, and one that is missing is told with what to give instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolecraft import bases
from rolecraft.errors import NotFound


def test_nano_is_a_folder_with_a_config():
    assert (Path(bases.find("nano")) / "config.json").is_file()
    assert bases.find_config("nano") == bases.find("nano")


def test_a_folder_is_found_where_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert bases.find(str(tmp_path)) == str(tmp_path)
    assert bases.find_config(str(tmp_path / "config.json")) == str(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["./absent", "~/absent", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name):
    with pytest.raises(NotFound, match="no folder"):
        bases.find(name)


def test_a_missing_config_is_a_missing_file():
    with pytest.raises(NotFound, match=r"no file 'absent\.json'"):
        bases.find_config("absent.json")


def test_an_adapter_given_as_the_base_is_told(tmp_path):
    with pytest.raises(NotFound, match=r"no config\.json\)$"):
        bases.find(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(NotFound, match="it is an adapter"):
        bases.find(str(tmp_path))


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(NotFound, match="no adapter in"):
        bases.require_adapter(tmp_path)


def test_other_weights_in_the_same_folder_have_another_identity(tmp_path):
    names = [bases.identity("nano", tmp_path)]
    for weights in (b"one", b"two"):
        (tmp_path / "adapter_model.safetensors").write_bytes(weights)
        names.append(bases.identity("nano", tmp_path))
    assert len(set(names)) == 3
    assert all(name.startswith(f"nano with {tmp_path} (") for name in names)
    assert bases.identity("nano") == "nano"
