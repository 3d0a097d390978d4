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


def test_the_doctor_tries_a_base_out(capsys):
    code, out, _ = call(capsys, "doctor", "--base", "nano", "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0
    assert (found["family"], found["parameters"]) == ("llama (LlamaForCausalLM)", 1_136_000)
    asked = "the tokenizer's config asks for it (rolecraft_renderer)"
    call_written = '{"name":"weather","args":{"city":"Ulm"}}'
    assert found["format"] == {"name": "nano", "why": asked, "call": call_written}
    assert found["context"] == {"model": 1024, "used": 1024}
    assert 0 < found["memory"]["bfloat16"]["weights"] < found["memory"]["float32"]["weights"]
    assert found["reply"]["tokens"] > 0


def test_the_doctor_tells_of_a_base_what_may_be_read_of_it(capsys):
    code, out, _ = call(capsys, "doctor", "--base", "nano")
    said = " ".join(out.split())
    assert code == 0
    for text in ("family llama", "chat format nano:", "1,024 tokens", "to tune a LoRA", "worked out", "first reply"):
        assert text in said


def test_the_doctor_says_that_a_base_is_missing(capsys, tmp_path):
    code, _, err = call(capsys, "doctor", "--base", str(tmp_path / "none"))
    assert code == 2
    assert "no folder" in err
