"""What the system and FFmpeg refuse is said in words, with the file where nothing else names it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from rtdecode import reasons
from rtdecode.errors import RtDecodeError
from rtdecode.phantom.film.from_file import film_from_file

NO_FILM = "it is no film, or damaged, or was not written to its end"


def caught(act: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as refused:  # noqa: PT011
        act()
    return refused.value


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "the disk can only be read"),
        (errno.ENOTDIR, "it is a file, and a folder was expected"),
        (errno.EISDIR, "it is a folder, and a file was expected"),
    ],
)
def test_an_error_of_the_system_is_said_in_words_without_its_number(number: int, sentence: str) -> None:
    error = OSError(number, os.strerror(number), "/a/b")
    assert reasons.words(error) == sentence
    # The file is named once.
    assert str(RtDecodeError("path-refused", "no: {error}.", error=error)) == f"no: {sentence}: /a/b."
    assert (
        str(RtDecodeError("path-refused", "{path}: {error}.", path=Path("/a/b"), error=error))
        == f"/a/b: {sentence}."
    )
    assert RtDecodeError("path-refused", "{error}", error=error).to_json()["values"] == {
        "error": f"{sentence}: /a/b"
    }


def test_what_the_table_does_not_know_is_said_as_the_system_does() -> None:
    assert reasons.words(OSError(errno.EPIPE, os.strerror(errno.EPIPE))) == "Broken pipe"
    assert reasons.words(ValueError("as it is")) == "as it is"


def test_what_ffmpeg_refuses_is_said_in_words(tmp_path: Path) -> None:
    text = tmp_path / "film.mp4"
    text.write_bytes(b"no film" * 100)
    assert reasons.words(caught(lambda: av.open(str(text)))) == NO_FILM
    assert reasons.words(caught(lambda: av.open(str(tmp_path / "no.mp4")))) == (
        "there is no such file or folder"
    )
    assert reasons.words(caught(lambda: av.open(str(tmp_path)))) == "it is a folder, and a file was expected"
    error = caught(lambda: film_from_file(text, (64, 96), 8.0, 1))
    assert str(error) == f"{text} cannot be read as a film ({NO_FILM}). Give a film that PyAV reads."
