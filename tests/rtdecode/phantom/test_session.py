import csv
import json
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.video import read_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.body import amplifier
from rtdecode.phantom.body.brain import LEAD_S, subject
from rtdecode.phantom.body.presets import PRESETS, Preset, preset_named
from rtdecode.phantom.body.scanner import Scanner
from rtdecode.phantom.session import LEAD_IN_S, START_AT, PhantomSession
from rtdecode.types import EegChunk, Trigger, Volume
from tests.refusals import refused


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    return PhantomSession("easy", seed=41, seconds=12)


def test_everything_arrives_in_order_and_completely(session: PhantomSession) -> None:
    items = list(session.events())
    arrivals = [item.arrived_at for item in items]
    assert arrivals == sorted(arrivals)
    volumes = [item for item in items if isinstance(item, Volume)]
    triggers = [item for item in items if isinstance(item, Trigger)]
    chunks = [item for item in items if isinstance(item, EegChunk)]
    assert len(volumes) == len(triggers) == 25
    assert sum(chunk.data.shape[1] for chunk in chunks) == 30_000
    assert chunks[0].stamps[0] == START_AT - LEAD_IN_S
    assert triggers[0].stamp == START_AT
    assert [v.index for v in volumes] == list(range(25))
    assert volumes[3].readable_at == pytest.approx(START_AT + 4 * 0.8 + 0.85)
    assert volumes[3].recon_s == pytest.approx(1.6)
    assert volumes[3].acquired_s == pytest.approx(2.4)


def test_same_arguments_same_bits(session: PhantomSession) -> None:
    again = PhantomSession("easy", seed=41, seconds=12)
    assert np.array_equal(session.eeg(), again.eeg())
    assert np.array_equal(session.scanner.volume(11), again.scanner.volume(11))
    assert again.uid == session.uid


@pytest.mark.parametrize("film", ["shapes", "natural"])
def test_sessions_that_follow_each_other_share_the_film_that_they_show(film: str) -> None:
    first, of_nothing, second, of_another = (
        PhantomSession("easy", number, seed, 8, film=film_name, film_seed=5)
        for number, seed, film_name in ((1, 5, film), (1, 6, "none"), (2, 7, film), (1, 5, "known-shapes"))
    )
    assert second.film is first.film
    assert second.features is first.features
    assert not first.features.flags.writeable
    assert of_another.film is not first.film
    assert of_nothing.film is not first.film
    # It is no other film than one that is drawn anew.
    again = PhantomSession("easy", 1, 5, 8, film=film)
    assert again.film is not first.film
    assert np.array_equal(again.film.frames, first.film.frames)
    assert np.array_equal(again.features, first.features)


def test_another_seed_is_another_film_and_noise_in_the_same_brain(session: PhantomSession) -> None:
    other = PhantomSession("easy", seed=42, seconds=12)
    assert other.film.shots != session.film.shots
    assert not np.array_equal(other.scanner.volume(2), session.scanner.volume(2))
    assert np.array_equal(other.head.voxels, session.head.voxels)
    assert np.array_equal(other.head.mean, session.head.mean)


def test_a_drawn_film_is_shown_again_with_fresh_noise(session: PhantomSession) -> None:
    again = PhantomSession("easy", seed=43, seconds=12, film_seed=41, gaze="free")
    assert np.array_equal(again.film.frames, session.film.frames)
    assert again.film.shots == session.film.shots
    third = PhantomSession("easy", seed=44, seconds=12, film_seed=41, gaze="free")
    assert again.gaze is not None
    assert third.gaze is not None
    assert not np.array_equal(again.gaze.pixels(20), third.gaze.pixels(20))
    assert len({session.uid, again.uid, third.uid}) == 3
    # Two showings share what the film drives, and no noise.
    fixed = PhantomSession("easy", seed=43, seconds=12, film_seed=41)
    elsewhere = PhantomSession("easy", seed=43, seconds=12)
    assert np.array_equal(fixed.features, session.features)
    same, other = (np.corrcoef(session.state.ravel(), x.state.ravel())[0, 1] for x in (fixed, elsewhere))
    assert 0.1 < same < 0.9
    assert other < same / 2
    assert not np.array_equal(fixed.scanner.volume(2), session.scanner.volume(2))


def test_another_subject_is_another_brain(session: PhantomSession) -> None:
    other = PhantomSession("easy", 2, seed=41, seconds=12)
    assert other.film.shots == session.film.shots
    assert not np.array_equal(other.head.voxels, session.head.voxels)
    assert not np.array_equal(amplifier.leads(1).evoked, amplifier.leads(2).evoked)


def test_chunks_of_any_size_hold_the_same_samples(session: PhantomSession) -> None:
    uncut = session.eeg()
    for chunk_s in (0.007, 0.02, 1.7):
        chunks = [item for item in session.events(chunk_s) if isinstance(item, EegChunk)]
        assert np.array_equal(np.concatenate([c.data for c in chunks], axis=1), uncut)
        stamps = np.concatenate([c.stamps for c in chunks])
        assert np.allclose(np.diff(stamps), 0.001, atol=1e-9)


def test_vectors_are_what_the_volumes_hold(session: PhantomSession) -> None:
    volumes = [item for item in session.events(1.0) if isinstance(item, Volume)]
    flat = np.stack([v.data.reshape(-1)[session.head.voxels] for v in volumes])
    assert np.array_equal(flat, session.vectors())


@pytest.mark.full
def test_the_state_noise_is_shared_by_eeg_and_fmri() -> None:
    """On fresh time, what sources and voxels say of the state's noise agrees within a session only."""
    first, second = (_noise_readings(seed) for seed in (43, 44))
    assert _correlation(first[0], first[1]) > 0.2
    assert abs(_correlation(first[0], second[1])) < 0.1


def test_the_presets_grow_harder() -> None:
    order = [PRESETS[name] for name in ("easy", "default", "hard")]
    assert [p.feature_noise for p in order] == sorted(p.feature_noise for p in order)
    assert [p.eeg_db for p in order] == sorted((p.eeg_db for p in order), reverse=True)
    for preset in order:
        assert str(preset.feature_noise) in preset.describe()
        assert str(preset.eeg_db) in preset.describe()


def test_truth_is_complete(session: PhantomSession, tmp_path: Path) -> None:
    session.truth(tmp_path)
    film = read_mp4(tmp_path / "film.mp4").astype(float)
    assert film.shape == session.film.frames.shape
    assert np.abs(film - session.film.frames).mean() < 4
    with (tmp_path / "events.tsv").open() as file:
        assert len(list(csv.DictReader(file, delimiter="\t"))) == 3
    assert (tmp_path / "faults.jsonl").read_text() == ""


def test_lost_items_do_not_arrive() -> None:
    session = PhantomSession("easy", seed=41, seconds=12, spec="volume-drop@4:1.6,eeg-drop@3:0.5")
    items = list(session.events())
    indices = [item.index for item in items if isinstance(item, Volume)]
    assert sorted(set(range(25)) - set(indices)) == [5, 6]
    stamps = np.concatenate([item.stamps for item in items if isinstance(item, EegChunk)])
    assert len(stamps) == 29_500
    assert np.diff(stamps).max() == pytest.approx(0.501)
    assert sum(isinstance(item, Trigger) for item in items) == 25
    assert json.dumps([f.kind for f in session.faults]) == '["eeg-drop", "volume-drop"]'


def test_what_cannot_be_is_said() -> None:
    with refused(UsageError, "preset-unknown", available=["easy", "default", "hard"]):
        preset_named("trivial")


@pytest.mark.parametrize(
    ("options", "code", "values"),
    [
        ({"subject_number": 0}, "phantom-subject-invalid", {"subject": 0}),
        ({"subject_number": -1}, "phantom-subject-invalid", {"subject": -1}),
        ({"seed": -3}, "phantom-seed-negative", {"seed": -3}),
        ({"film_seed": -3}, "phantom-film-seed-negative", {"film_seed": -3}),
        ({"seconds": 0}, "phantom-duration-invalid", {"duration_s": 0}),
        ({"seconds": 0.05}, "film-under-one-frame", {"duration_s": 0.05}),
        ({"seconds": float("nan")}, "phantom-duration-invalid", {"duration_s": "nan"}),
        ({"seconds": float("inf")}, "phantom-duration-invalid", {"duration_s": "inf"}),
        ({"sfreq": 99.0}, "phantom-sfreq-invalid", {"sfreq": 99.0}),
        ({"sfreq": 250.5}, "phantom-sfreq-invalid", {"sfreq": 250.5}),
        ({"sfreq": float("inf")}, "phantom-sfreq-invalid", {"sfreq": "inf"}),
    ],
)
def test_a_session_that_cannot_be_simulated_is_refused(options: dict, code: str, values: dict) -> None:
    with refused(UsageError, code, **values):
        PhantomSession("easy", **options)


def _noise_readings(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The slow part of the state's noise, read from EEG sources and from voxels, (volume, feature).

    The same session without noise in the state is subtracted, so that nothing else is left; the
    readouts are fitted on the first two thirds of the time and used on the rest.
    """
    noisy = PhantomSession("default", seed=seed, seconds=300)
    still = PhantomSession(Preset("still", 0.0, -15.0, 0.3, 70.0), seed=seed, seconds=300).state
    noise = noisy.state - still
    cuts = noisy.film.cut_frames
    slow = np.stack([np.convolve(n, np.ones(24) / 24)[: len(n)] for n in noise.T], axis=1)
    sources = amplifier.source_drive(1, noisy.state, cuts) - amplifier.source_drive(1, still, cuts)
    sources = np.stack([np.convolve(n, np.ones(24) / 24)[: len(n)] for n in sources.T], axis=1)
    scan = Scanner(noisy.head, subject(1), noisy.preset, still, noisy.volumes, seed)
    volumes = range(noisy.volumes)
    noiseless = np.stack([scan.volume(i).reshape(-1)[noisy.head.voxels] for i in volumes])
    voxels = noisy.vectors().astype(float) - noiseless
    now = (((np.arange(len(voxels)) + 0.5) * 0.8 + LEAD_S) * 8).astype(int)
    return _readout(sources[now], slow[now]), _readout(voxels, slow[now - 32])[5:]


def _readout(signals: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Ridge estimate of the targets in the last third of the time, fitted on the rest."""
    part = 2 * len(signals) // 3
    x = signals - signals[:part].mean(axis=0)
    gram = x[:part] @ x[:part].T
    weights = np.linalg.solve(gram + 0.03 * np.trace(gram) / part * np.eye(part), targets[:part])
    return x[part:] @ x[:part].T @ weights


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    count = min(len(a), len(b))
    return float(np.corrcoef(a[:count].ravel(), b[:count].ravel())[0, 1])
