import os
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rtdecode.disk import private
from streaming.address import Address
from streaming.session import entrance


class Links(HTMLParser):
    """Collects where a page leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("http-equiv") == "refresh":
            self.urls.append((values["content"] or "").partition("url=")[2])
        if tag == "a":
            self.urls.append(values["href"] or "")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_file_is_the_owner_s_alone(tmp_path: Path, umask: int, shared: bool) -> None:
    before = os.umask(umask)
    private.share_with_group(shared)
    try:
        path = entrance.write(tmp_path, Address("127.0.0.1", 8080, "the-token"))
    finally:
        private.share_with_group(False)
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    links = Links()
    links.feed(path.read_text())
    assert links.urls == ["http://127.0.0.1:8080/?token=the-token"] * 2


def test_a_file_that_is_there_is_replaced_and_never_written_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("somebody else's")
    (tmp_path / entrance.NAME).symlink_to(elsewhere)
    path = entrance.write(tmp_path, Address("::", 8080, "the-token"))
    assert elsewhere.read_text() == "somebody else's"
    assert not path.is_symlink()
    # An address that stands for all of this machine's is no address to open.
    assert "http://[::1]:8080/?token=the-token" in path.read_text()


def test_where_others_could_read_it_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a file system that takes modes and forgets them.
    monkeypatch.setattr(entrance.os, "fchmod", lambda *_: None)
    private.share_with_group(True)
    try:
        with pytest.raises(PermissionError):
            entrance.write(tmp_path, Address("127.0.0.1", 8080, "the-token"))
    finally:
        private.share_with_group(False)
    assert not list(tmp_path.iterdir())
