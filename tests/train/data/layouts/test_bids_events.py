"""Events of a BIDS folder that other programs wrote name their films all the same."""

from pathlib import Path

import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.laboratory import bids, write_film
from train.data.layouts.bids import opened

HEAD = "onset\tduration\ttrial_type\tstim_file\tnote\n"
ROW = "1.6\t4\tfilm\town/film.mp4\tn/a\n"
EVENTS = Path("sub-02", "func", "sub-02_task-film_events.tsv")
FILM = "stimuli/own/film.mp4/0000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bids(tmp_path / "own")


def clip_names(folder: Path, content: bytes) -> list[str]:
    (folder / EVENTS).write_bytes(content)
    return opened(folder, ["sub-02"]).windows.shown.tolist()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_note_in_any_western_encoding_hides_no_film(folder: Path, encoding: str) -> None:
    assert clip_names(folder, (HEAD + ROW + "9\t1\tpress\tn/a\t5 µV\n").encode(encoding)) == [FILM]


def test_a_lone_quotation_mark_hides_no_film(folder: Path) -> None:
    write_film(folder / "stimuli" / "other.mp4", 4)
    rows = '0\t1\t"5 inch\tn/a\tn/a\n' + ROW + '6\t1\t5" screen\tn/a\tn/a\n9\t4\tfilm\tother.mp4\tn/a\n'
    assert clip_names(folder, (HEAD + rows).encode()) == [FILM, "stimuli/other.mp4/0000"]


@pytest.mark.parametrize("name", [" own/film.mp4 ", r"own\film.mp4", "stimuli/own/film.mp4", "/own/film.mp4"])
def test_a_film_is_found_by_the_ways_in_which_programs_write_its_name(folder: Path, name: str) -> None:
    head = HEAD.replace("stim_file", " stim_file")
    assert clip_names(folder, (head + ROW.replace("own/film.mp4", name)).encode()) == [FILM]


def test_a_film_outside_the_folder_is_not_there(folder: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "elsewhere.mp4", 10)
    with refused(UsageError, "events-film-missing", film=str(film), events=folder / EVENTS):
        clip_names(folder, (HEAD + ROW.replace("own/film.mp4", str(film))).encode())


def test_columns_without_tabs_are_refused(folder: Path) -> None:
    """Such a table would have no column that names a film."""
    with refused(UsageError, "events-columns-joined", path=folder / EVENTS):
        clip_names(folder, (HEAD + ROW).replace("\t", ",").encode())


def test_another_encoding_is_refused_by_path(folder: Path) -> None:
    with refused(UsageError, "table-encoding-unknown", path=folder / EVENTS):
        clip_names(folder, (HEAD + ROW + "9\t1\tpress\tn/a\tКнопка\n").encode("cp1251"))


def test_a_sidecar_may_begin_with_a_mark(folder: Path) -> None:
    sidecar = folder / "task-film_bold.json"
    sidecar.write_text(sidecar.read_text(), "utf-8-sig")
    assert opened(folder).tr_s == 0.8
