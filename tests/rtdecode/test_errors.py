import copy
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import BundleError, CodedError, ManifestError, RtDecodeError, UsageError, explain
from tests import coded
from tests.refusals import check_error, refused

ROOT = Path(__file__).parents[2]
PACKAGES = ("benchmarks", "export", "rtdecode", "streaming", "tests", "train")


def test_every_error_of_the_repository_has_a_code_and_the_values_that_its_sentence_names() -> None:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 500
    assert coded.faults(files) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("raise UsageError(f'{x} is no number')", "an error without a code"),
        ("raise UsageError(message)", "an error without a code"),
        ("raise errors.BundleError('Not a slug', 'a sentence')", "an error without a code"),
        ("raise UsageError('film-unreadable', f'{x} cannot be read')", "is not written out"),
        ("raise UsageError('film-unreadable', '{film} cannot be read')", "names film, and no such value"),
        (
            "raise UsageError.wrap(error, 'film-unreadable', '{film}: {error}')",
            "names film, and no such value",
        ),
        ("raise UsageError.wrap(error)", "an error without a code"),
        (
            "class Own(UsageError): ...\nclass Other(Own): ...\nraise Other('words')",
            "an error without a code",
        ),
        ("class _Own(UsageError): ...\nraise _Own('words')", "an error without a code"),
        ("raise UsageError('film-unreadable', '{film} cannot be read', film=film)", None),
        ("raise UsageError.wrap(error, 'film-unreadable', '{film}: {error}', film=film)", None),
        ("raise ValueError('words')", None),
    ],
)
def test_an_error_without_a_code_is_refused_with_its_line(
    line: str, fault: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "test_own.py"
    file.write_text(line + "\n")
    lines = coded.faults([ROOT / "rtdecode" / "errors.py", file])
    if fault is None:
        assert lines == []
    else:
        (text,) = lines
        assert text.startswith(f"{file}:{line.count(chr(10)) + 1}: ")
        assert fault in text


def test_an_error_is_a_code_values_and_a_sentence_made_of_them() -> None:
    error = UsageError(
        "steps-unsupported",
        "{steps:.1f} steps in {path!r}: there are {available}, not {refused}, of {shape}",
        steps=2,
        path="a {b}",
        available=["1", "2"],
        refused=[],
        shape=(3, 4),
    )
    assert str(error) == "2.0 steps in 'a {b}': there are 1, 2, not none, of (3, 4)"
    assert error.exit_code == 2
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is UsageError
        assert (str(twin), twin.code, twin.values) == (str(error), error.code, error.values)


def test_an_error_about_another_one_keeps_its_code() -> None:
    cause = ManifestError("wiring-port-unknown", "no port {port}", port="x")
    error = BundleError.wrap(cause, "manifest-invalid", "{path}: {error}", path=Path("m.json"))
    check_error(error, "wiring-port-unknown", port="x", path="m.json", error="no port x")
    assert str(error) == "m.json: no port x"
    other = BundleError.wrap(OSError("gone"), "manifest-invalid", "{path}: {error}", path=Path("m.json"))
    check_error(other, "manifest-invalid", error=re.compile("^gone$"))


def test_an_error_is_printed_as_a_sentence_and_with_json_as_values_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = RtDecodeError(
        "volume-wrong",
        "{path} has {mean}",
        path=Path("v.nii"),
        mean=np.float32("nan"),
        shape=(1, np.int64(2)),
        rates={"eeg": {3}},
        label=None,
    )
    assert explain(error) == 1
    assert capsys.readouterr() == ("", "v.nii has nan\n")
    assert explain(error, program="rtdecode", as_json=True) == 1
    printed = capsys.readouterr()
    assert printed.err == "rtdecode: v.nii has nan\n"
    values = {"path": "v.nii", "mean": None, "shape": [1, 2], "rates": {"eeg": [3]}, "label": None}
    tree = {"code": "volume-wrong", "message": "v.nii has nan", "exit_code": 1, "values": values}
    assert json.loads(printed.out) == {"error": tree}
    again = RtDecodeError.from_json(tree | {"exit_code": 4}, "why")
    assert (again.code, str(again), again.values["path"]) == ("volume-wrong", "v.nii has nan", "v.nii")
    assert (again.exit_code, again.reason) == (4, "why")


def test_a_test_sees_another_code_and_other_values() -> None:
    def fail(**values: int) -> None:
        raise UsageError("steps-unsupported", "no", **values)

    with pytest.raises(AssertionError, match="steps-unsupported"), refused(UsageError, "steps-missing"):
        fail()
    with (
        pytest.raises(AssertionError, match="steps: 1, not 2"),
        refused(UsageError, "steps-unsupported", steps=2),
    ):
        fail(steps=1)
    with (
        pytest.raises(AssertionError, match="level is none of"),
        refused(UsageError, "steps-unsupported", level=2),
    ):
        fail(steps=1)
    with pytest.raises(BaseException, match="DID NOT RAISE"), refused(UsageError, "steps-unsupported"):
        pass
    with refused(CodedError, "steps-unsupported", steps="1") as caught:
        fail(steps=1)
    assert isinstance(caught.value, UsageError)
