"""What advice names is the way that the reader installed the package by."""

import json
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from rtdecode import installing


@pytest.mark.parametrize(
    ("source", "requirement"),
    [
        (None, "'rtdecode[train]'"),
        ({"url": "file:///home/a/rtdecode", "dir_info": {"editable": True}}, "-e '/home/a/rtdecode[train]'"),
        ({"url": "file:///tmp/r.whl", "archive_info": {}}, "'rtdecode[train] @ file:///tmp/r.whl'"),
    ],
)
def test_a_clone_a_wheel_and_an_index_are_told_apart(
    source: dict | None, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"direct_url.json": source and json.dumps(source)}
    monkeypatch.setattr(metadata, "distribution", lambda name: SimpleNamespace(read_text=texts.get))
    assert installing.command("train") == f"{sys.executable} -m pip install {requirement}"


def test_it_is_this_interpreter_that_is_named() -> None:
    assert installing.command("cpu").startswith(f"{sys.executable} -m pip install ")


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch.nn", "train"), ("yaml", "train"), ("onnx", "export"), ("onnx_ir", "export"), ("json", None)],
)
def test_the_extra_of_a_module_is_known(module: str, extra: str | None) -> None:
    assert installing.extra_of(module) == extra
