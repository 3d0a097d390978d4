"""What a plan claims and what a session is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rolecraft.sandbox import _confine, _pool


def plan(**changes: object) -> _confine.Plan:
    return _confine.Plan("none", False, False, False, True, 0, 0)._replace(**changes)


def test_a_plan_names_every_layer():
    assert tuple(plan().layers()) == _pool.LAYERS


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, set()),
        ({"namespaces": "user"}, {"userns", "mounts", "network", "pids"}),
        ({"namespaces": "plain"}, {"mounts", "network", "pids"}),
        ({"landlock": True}, {"landlock"}),
        ({"seccomp": True}, {"seccomp"}),
        ({"switch_user": True}, {"unprivileged"}),
        ({"cgroup": True}, {"cgroup"}),
        ({"started_by_root": False}, {"unprivileged"}),
    ],
)
def test_a_plan_claims_no_more_than_it_does(changes: dict[str, object], held: set[str]):
    assert {name for name, holds in plan(**changes).layers().items() if holds} == {"rlimits", *held}


@pytest.mark.parametrize(
    ("ranges", "number", "mapped"),
    [
        ("0 0 4294967295\n", 65534, True),
        ("         0     100000      65536\n", 65535, True),
        ("         0     100000      65536\n", 65536, False),
        ("0 1000 1\n1 100000 10\n", 10, True),
        ("0 1000 1\n1 100000 10\n", 11, False),
        ("", 0, False),
    ],
)
def test_user_ids_of_a_container_are_known(tmp_path: Path, ranges: str, number: int, mapped: bool):
    (tmp_path / "uid_map").write_text(ranges)
    assert _confine._mapped(str(tmp_path / "uid_map"), number) is mapped


def test_what_is_read_is_the_interpreter_and_what_was_asked_for(tmp_path: Path):
    library = os.path.dirname(os.__file__)
    paths = _confine.readable_paths([str(tmp_path), str(tmp_path / "absent")])
    assert {library, str(tmp_path)} <= set(paths)
    assert str(tmp_path / "absent") not in paths
    assert not {"/", "/etc", "/home", "/root", "/tmp", "/usr", "/var", str(Path.home())} & set(paths)


def test_installed_packages_are_left_out():
    library = os.path.dirname(os.__file__)
    readable, listable = _confine.without_packages(["/lib", library])
    assert listable == [library]
    assert {"/lib", f"{library}/os.py", f"{library}/json"} <= set(readable)
    assert not {library, f"{library}/site-packages", f"{library}/dist-packages"} & set(readable)


def test_plans_get_less_strict():
    plans = list(_pool._plans(frozenset()))
    assert plans[0][0] == "user" or os.name != "posix"
    assert plans[-1] == ("none", False)
    assert len(set(plans)) == len(plans)


@pytest.mark.parametrize(("without", "kind"), [("mounts", {"none"}), ("userns", {"plain", "none"})])
def test_a_layer_left_out_is_not_planned(without: str, kind: set[str]):
    assert {namespaces for namespaces, _ in _pool._plans(frozenset((without,)))} <= kind
