"""What is found on this machine, for a reader and for a program."""

from __future__ import annotations

import json

from verbs import call


def test_the_doctor_tells_versions_devices_layers_and_extras(capsys):
    code, out, _ = call(capsys, "doctor", "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0
    assert found["versions"]["torch"]
    assert found["devices"]["cpu_cores"] >= 1
    assert set(found["sandbox"]) >= {"landlock", "seccomp", "rlimits"}
    assert "wandb" in found["extras"]


def test_the_doctor_names_the_command_that_installs_an_extra(capsys):
    _, out, _ = call(capsys, "doctor")
    assert "sandbox" in out
    assert "rolecraft[wandb]" in " ".join(out.split()) or "wandb" in out
