"""Sources that make no recording are refused in one sentence, and leave nothing behind."""

import gzip
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rtdecode.disk.recording import Recording
from rtdecode.disk.video import write_mp4
from rtdecode.errors import RtDecodeError
from rtdecode.types import EegChunk, Trigger, Volume
from streaming.importing import command
from tests.streaming.importing import dicom_files, parrec_files
from tests.streaming.importing import xdf_files as xdf

SFREQ = 200
TR = 1.0
COUNT = 12
LABELS = ("Fp1", "Fp2", "C3", "C4", "Pz", "Oz")
RNG = np.random.default_rng(0)
SAMPLES = RNG.normal(0, 20, (SFREQ * 20, len(LABELS))).astype("<f4")


def eeg_stream(
    number: int = 1,
    name: str = "amp",
    *,
    sfreq: float = SFREQ,
    begin: float = 100.0,
    closed: bool = True,
    values: np.ndarray = SAMPLES,
) -> list[bytes]:
    """Chunks of an EEG stream; its header says SFREQ, and its samples come at `sfreq`."""
    header = xdf.stream_chunk(2, number, xdf.eeg_header(name, LABELS, SFREQ).encode())
    stamps = begin + np.arange(len(values)) / sfreq
    parts = [
        xdf.samples(number, stamps[first : first + 100], values[first : first + 100])
        for first in range(0, len(values), 100)
    ]
    return [header, *parts, *([xdf.footer(number, len(values))] if closed else [])]


def markers(count: int = COUNT, begin: float = 103.0, number: int = 2, label: str = "R128") -> list[bytes]:
    header = xdf.stream_chunk(2, number, xdf.marker_header("amp-markers").encode())
    stamps = [begin + TR * n for n in range(count)]
    return [header, xdf.texts(number, stamps, [label] * count), xdf.footer(number, count)]


def write_xdf(path: Path, *streams: Sequence[bytes]) -> Path:
    path.write_bytes(xdf.file_of([chunk for stream in streams for chunk in stream]))
    return path


def write_bold(path: Path, count: int = COUNT, tr_s: float = TR) -> Path:
    volumes = RNG.integers(0, 2000, (6, 5, 4, count)).astype(np.int16)
    image = nib.Nifti1Image(volumes, np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = tr_s
    image.to_filename(path)
    return path


@pytest.fixture
def bold(tmp_path: Path) -> Path:
    return write_bold(tmp_path / "bold.nii.gz")


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: capsys.readouterr().err


def imported(out: Path, *sources: Path, **options: object) -> Recording:
    assert command.run(command.ImportOptions(sources, out, **options)) == 0
    return Recording(out)


def refused(out: Path, *sources: Path, **options: object) -> RtDecodeError:
    before = sorted(path.name for path in out.parent.iterdir())
    with pytest.raises(RtDecodeError) as caught:
        command.run(command.ImportOptions(sources, out, **options))
    assert sorted(path.name for path in out.parent.iterdir()) == before
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_recording_holds_samples_triggers_and_volumes_and_no_names(tmp_path: Path, bold: Path) -> None:
    bold = bold.rename(tmp_path / "bold.Miller.nii.gz")
    source = write_xdf(tmp_path / "Miller.xdf", eeg_stream(), markers())
    recording = imported(tmp_path / "rec", source, bold)
    items = list(recording.events())
    data = np.concatenate([item.data for item in items if isinstance(item, EegChunk)], axis=1)
    assert np.array_equal(data, SAMPLES.T)
    assert [item.stamp for item in items if isinstance(item, Trigger)] == [103.0 + n for n in range(COUNT)]
    volumes = [item for item in items if isinstance(item, Volume)]
    expected = np.asarray(nib.load(bold).dataobj)
    assert all(np.array_equal(volume.data, expected[..., volume.index]) for volume in volumes)
    assert [volume.readable_at for volume in volumes] == pytest.approx([104.0 + n for n in range(COUNT)])
    for path in (tmp_path / "rec").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"miller" not in path.read_bytes().lower()
        assert b"bold" not in path.read_bytes()
    assert (tmp_path / "rec").stat().st_mode & 0o777 == 0o700


def test_a_file_that_is_cut_short_is_read_up_to_there(
    tmp_path: Path, bold: Path, stderr: Callable[[], str]
) -> None:
    source = write_xdf(tmp_path / "a.xdf", markers(), eeg_stream())
    content = source.read_bytes()
    source.write_bytes(content[:-700])
    recording = imported(tmp_path / "rec", source, bold)
    samples = sum(item.data.shape[1] for item in recording.events() if isinstance(item, EegChunk))
    assert samples == len(SAMPLES) - 100
    assert "ends in the middle of a chunk" in (words := stderr())
    assert "have no footer" in words


def test_clock_offsets_move_the_stamps(tmp_path: Path, bold: Path) -> None:
    offsets = [xdf.clock_offset(1, 90.0 + 5 * n, 0.5) for n in range(6)]
    source = write_xdf(tmp_path / "a.xdf", [*eeg_stream(), *offsets], markers())
    first = next(
        item for item in imported(tmp_path / "rec", source, bold).events() if isinstance(item, EegChunk)
    )
    assert first.stamps[0] == pytest.approx(100.5)


def test_clock_resets_are_told(tmp_path: Path, stderr: Callable[[], str]) -> None:
    half = len(SAMPLES) // 2
    parts = eeg_stream(values=SAMPLES[:half], closed=False)
    # The amplifier's computer starts again: its clock begins at 5 s.
    again = eeg_stream(values=SAMPLES[half:], begin=5.0)[1:]
    offsets = [xdf.clock_offset(1, 100.0 + n, 0.0) for n in range(10)]
    offsets += [xdf.clock_offset(1, 5.0 + n, 105.0) for n in range(10)]
    source = write_xdf(tmp_path / "a.xdf", [*parts, *again, *offsets])
    imported(tmp_path / "rec", source)
    assert "was set anew 1 times" in stderr()


def test_unix_times_do_not_say_when_the_participant_came(tmp_path: Path, bold: Path) -> None:
    shift = 1.7e9
    source = write_xdf(tmp_path / "a.xdf", eeg_stream(begin=shift), markers(begin=shift + 3.0))
    items = list(imported(tmp_path / "rec", source, bold).events())
    assert max(item.arrived_at for item in items) < 2000
    trigger = next(item for item in items if isinstance(item, Trigger))
    assert trigger.stamp == pytest.approx(1003.0, abs=1e-6)


def test_two_eeg_streams_of_one_name_are_chosen_by_number(tmp_path: Path, bold: Path) -> None:
    source = write_xdf(tmp_path / "a.xdf", eeg_stream(1), markers(), eeg_stream(3, values=2 * SAMPLES))
    assert refused(tmp_path / "rec", source, bold).code == "xdf-eeg-stream-unclear"
    assert refused(tmp_path / "rec", source, bold, stream="amp").values["count"] == 2
    recording = imported(tmp_path / "rec", source, bold, stream="3")
    first = next(item for item in recording.events() if isinstance(item, EegChunk))
    assert np.array_equal(first.data, 2 * SAMPLES[:40].T)


def test_texts_where_numbers_were_promised_are_refused(tmp_path: Path) -> None:
    header = xdf.eeg_header("amp", ["Fz"], 1, form="string")
    stream = [xdf.stream_chunk(2, 1, header.encode()), xdf.texts(1, [100.0, 101.0], ["a", "b"])]
    error = refused(tmp_path / "rec", write_xdf(tmp_path / "a.xdf", stream))
    assert error.code == "xdf-stream-not-numeric"


def test_channels_and_unit_are_given_where_a_stream_states_none(tmp_path: Path) -> None:
    header, *parts = eeg_stream()
    bare = xdf.eeg_header("amp", [""] * len(LABELS), SFREQ, unit="").encode()
    source = write_xdf(tmp_path / "a.xdf", [xdf.stream_chunk(2, 1, bare), *parts])
    assert refused(tmp_path / "rec", source).code == "xdf-labels-missing"
    names = ",".join(LABELS)
    for options, code in (
        ({"channels": "Fp1,Fp2"}, "xdf-labels-count"),
        ({"channels": names, "unit": "furlong"}, "xdf-unit-unsupported"),
    ):
        assert refused(tmp_path / "rec", source, **options).code == code
    recording = imported(tmp_path / "rec", source, channels=names, unit="mV")
    assert recording.montage is not None
    assert recording.montage.channels == LABELS
    first = next(item for item in recording.events() if isinstance(item, EegChunk))
    assert np.allclose(first.data, 1000 * SAMPLES[:40].T)
    labelled = write_xdf(tmp_path / "b.xdf", [header, *parts])
    assert refused(tmp_path / "no", labelled, channels=names).code == "xdf-labels-stated"


def test_a_rate_that_is_off_by_a_twentieth_is_refused(tmp_path: Path) -> None:
    source = write_xdf(tmp_path / "a.xdf", eeg_stream(sfreq=0.95 * SFREQ))
    error = refused(tmp_path / "rec", source)
    assert error.code == "xdf-rate-mismatch"
    assert "190" in str(error)


def test_what_is_no_xdf_or_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    path.write_bytes(b"something else")
    assert refused(tmp_path / "rec", path).code == "xdf-unreadable"
    content = write_xdf(path, eeg_stream()).read_bytes()
    # The length of the second chunk is lost.
    path.write_bytes(content[:120] + b"\x00" * 40 + content[160:])
    assert refused(tmp_path / "rec", path).code == "xdf-damaged"


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    content = write_xdf(tmp_path / "a.xdf", eeg_stream(), markers()).read_bytes()
    packed = tmp_path / "a.xdfz"
    packed.write_bytes(gzip.compress(content))
    chunks = [c for c in imported(tmp_path / "rec", packed).events() if isinstance(c, EegChunk)]
    assert np.array_equal(np.concatenate([chunk.data for chunk in chunks], axis=1), SAMPLES.T)
    packed.write_bytes(packed.read_bytes()[:-500])
    assert refused(tmp_path / "no", packed).code == "xdf-damaged"


def test_samples_that_are_texts_where_numbers_were_promised_are_refused(tmp_path: Path) -> None:
    header, *parts = eeg_stream()
    stream = [header, *parts[:3], xdf.texts(1, [100.0 + n for n in range(40)], ["abc"] * 40), *parts[3:]]
    assert refused(tmp_path / "rec", write_xdf(tmp_path / "a.xdf", stream)).code == "xdf-damaged"


def test_other_streams_are_told(tmp_path: Path, stderr: Callable[[], str]) -> None:
    gaze = xdf.stream_chunk(2, 5, xdf.eeg_header("gaze", ["x", "y"], 50, kind="Gaze").encode())
    imported(tmp_path / "rec", write_xdf(tmp_path / "a.xdf", eeg_stream(), markers(), [gaze]))
    words = stderr()
    assert "a.xdf has 1 other streams, which are left out: 3 'gaze' (Gaze)." in words
    assert "EEG: 6 channels at 200 Hz, 20.0 s." in words


def test_a_marker_stream_that_is_not_there_is_refused(tmp_path: Path, bold: Path) -> None:
    source = write_xdf(tmp_path / "a.xdf", eeg_stream(), markers())
    assert refused(tmp_path / "rec", source, bold, markers="x").code == "xdf-marker-stream-unclear"
    assert imported(tmp_path / "rec", source, bold, markers="amp-markers").has_triggers()


def test_triggers_on_another_clock_are_refused(tmp_path: Path, bold: Path) -> None:
    source = write_xdf(tmp_path / "a.xdf", eeg_stream(), markers(begin=5000.0))
    assert refused(tmp_path / "rec", source, bold).code == "import-triggers-elsewhere"


@pytest.mark.parametrize("count", [COUNT - 1, COUNT + 1, COUNT // 2])
def test_triggers_that_are_not_as_many_as_volumes_are_refused(tmp_path: Path, bold: Path, count: int) -> None:
    source = write_xdf(tmp_path / "a.xdf", eeg_stream(), markers(count))
    error = refused(tmp_path / "rec", source, bold)
    assert error.code == "import-trigger-count"
    assert f"{abs(COUNT - count)} too {'few' if count < COUNT else 'many'}" in str(error)


def test_triggers_of_another_run_are_refused(tmp_path: Path, bold: Path) -> None:
    # A run of another TR, of as many volumes.
    stamps = [103.0 + 1.2 * TR * n for n in range(COUNT)]
    header = xdf.stream_chunk(2, 2, xdf.marker_header("amp-markers").encode())
    other = [header, xdf.texts(2, stamps, ["R128"] * COUNT), xdf.footer(2, COUNT)]
    error = refused(tmp_path / "rec", write_xdf(tmp_path / "a.xdf", eeg_stream(), other), bold)
    assert error.code == "import-triggers-missing"
    assert "12 of 'R128' every 1.200 s" in str(error)


def test_an_option_or_a_table_places_volumes_without_triggers(tmp_path: Path, bold: Path) -> None:
    source = write_xdf(tmp_path / "a.xdf", eeg_stream())
    assert refused(tmp_path / "rec", source, bold).code == "import-triggers-missing"
    recording = imported(tmp_path / "rec", source, bold, volumes_at=3.0)
    assert not recording.has_triggers()
    table = tmp_path / "triggers.tsv"
    table.write_text("onset\n" + "".join(f"{103 + n}\n" for n in range(COUNT)))
    by_table = imported(tmp_path / "table", source, bold, triggers=table)
    for read in (recording, by_table):
        volumes = [item for item in read.events() if isinstance(item, Volume)]
        assert volumes[0].readable_at == pytest.approx(104.0)
    table.write_text("time\n1\n")
    assert refused(tmp_path / "no", source, bold, triggers=table).code == "import-triggers-malformed"


def test_volumes_alone_and_eeg_alone_make_recordings(tmp_path: Path, bold: Path) -> None:
    assert imported(tmp_path / "volumes", bold).survey.volumes == COUNT
    source = write_xdf(tmp_path / "a.xdf", eeg_stream(), markers())
    recording = imported(tmp_path / "eeg", source)
    assert recording.survey.triggers == COUNT
    assert recording.survey.volumes == 0


def test_a_sidecar_states_the_tr_and_what_was_discarded(tmp_path: Path) -> None:
    bold = write_bold(tmp_path / "bold.nii", COUNT - 3, tr_s=0.0)
    source = write_xdf(tmp_path / "a.xdf", eeg_stream(), markers())
    sidecar = tmp_path / "bold.json"
    sidecar.write_text('{"RepetitionTime": 1.0, "NumberOfVolumesDiscardedByUser": 3}')
    volumes = [v for v in imported(tmp_path / "rec", source, bold).events() if isinstance(v, Volume)]
    assert volumes[0].readable_at == pytest.approx(107.0)
    sidecar.write_text('{"RepetitionTime": 1000}')
    assert refused(tmp_path / "no", source, bold).code == "import-tr-invalid"
    sidecar.write_text('{"RepetitionTime": 1.0, "NumberOfVolumesDiscardedByUser": "three"}')
    assert refused(tmp_path / "no", source, bold).code == "import-discarded-invalid"
    sidecar.write_text('{"RepetitionTime": 1.0, "LostVolumes": [[1]]}')
    assert refused(tmp_path / "no", source, bold).code == "import-lost-volumes-invalid"
    sidecar.write_text("{")
    assert refused(tmp_path / "no", source, bold).code == "import-sidecar-unreadable"
    sidecar.unlink()
    assert refused(tmp_path / "no", bold).code == "import-tr-missing"


def test_a_par_file_is_read_with_its_rec_file(tmp_path: Path) -> None:
    volumes = RNG.integers(0, 2000, (5, 6, 5, 4))
    affine = np.diag([-3.0, -3.0, 4.0, 1.0])
    header = parrec_files.write(tmp_path / "run.PAR", volumes, affine, TR)
    recording = imported(tmp_path / "rec", header)
    read = [item for item in recording.events() if isinstance(item, Volume)]
    assert np.array_equal([volume.data for volume in read], volumes)
    assert np.allclose(read[0].affine, affine)
    assert {volume.tr_s for volume in read} == {TR}
    header.with_suffix(".rec").unlink()
    assert refused(tmp_path / "no", header).code == "import-volumes-missing"


def test_sources_that_are_not_one_run_are_refused(tmp_path: Path, bold: Path) -> None:
    out = tmp_path / "rec"
    assert refused(out, tmp_path / "a.xdf").code == "import-source-missing"
    for name, code in (("a.txt", "import-source-unknown"), ("a.vmrk", "import-source-part")):
        (tmp_path / name).write_text("")
        assert refused(out, tmp_path / name).code == code
    assert refused(out, bold, write_bold(tmp_path / "b.nii")).code == "import-sources-too-many"
    (tmp_path / "empty").mkdir()
    assert refused(out, tmp_path / "empty").code == "import-volumes-missing"
    (tmp_path / "empty" / "dataset_description.json").write_text("{}")
    assert refused(out, tmp_path / "empty").code == "import-bids-subject"
    (tmp_path / "in-use").mkdir()
    (tmp_path / "in-use" / "file").write_text("")
    assert refused(tmp_path / "in-use", bold).code == "recording-folder-not-empty"


def test_a_dicom_folder_of_two_runs_is_refused_and_one_is_chosen_by_its_series(tmp_path: Path) -> None:
    folder = dicom_files.write(tmp_path / "scanner", 3, datetime(2026, 3, 2, 12), series=4)
    dicom_files.write(folder, 4, datetime(2026, 3, 2, 12, 5), series=7)
    error = refused(tmp_path / "rec", folder)
    assert error.code == "import-series-unclear"
    assert "series 4 (3 volumes" in str(error)
    assert "series 7 (4 volumes" in str(error)
    assert imported(tmp_path / "rec", folder, series=7).survey.volumes == 4


def test_the_film_and_its_events_are_the_truth(tmp_path: Path, bold: Path) -> None:
    source = write_xdf(tmp_path / "a.xdf", eeg_stream(), markers(), markers(1, 105.0, 3, "film"))
    film = tmp_path / "Miller at home.mp4"
    write_mp4(film, RNG.integers(0, 255, (40, 32, 48, 3)).astype(np.uint8), 8)
    events = tmp_path / "events.tsv"
    events.write_text("onset\tduration\tperson\n0\t2\tMiller\n2\t3\tMiller\n")
    recording = imported(tmp_path / "rec", source, bold, film=film, events=events)
    assert recording.truth is not None
    assert (recording.truth / "film.mp4").read_bytes() == film.read_bytes()
    assert "Miller" not in (recording.truth / "events.tsv").read_text()
    (showing,) = recording.films()
    assert (showing.onset_at, showing.fps, showing.frames) == (pytest.approx(103.0), 8, 40)
    later = imported(tmp_path / "later", source, bold, film=film, film_at="film")
    assert later.films()[0].onset_at == pytest.approx(105.0)
    assert refused(tmp_path / "no", source, bold, film=film, film_at="x").code == "import-film-marker-unclear"
    events.write_text("onset\tduration\n0\t2\n4\t3\n")
    error = refused(tmp_path / "no", source, bold, film=film, events=events)
    assert error.code == "import-film-short"
    assert "5.000 s" in str(error)
    events.write_text("begin\n0\n")
    assert refused(tmp_path / "no", source, bold, events=events).code == "import-events-malformed"
    film.write_bytes(b"no film")
    assert refused(tmp_path / "no", source, bold, film=film).code == "import-film-unreadable"
