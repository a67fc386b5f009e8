"""Batches of windows are standardised, of one subject each, and take each of its windows once in an epoch."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder as release
from tests.train.data.held import Held, table
from train.data import splits, standard
from train.data.draws import WindowRows
from train.data.opening import opened
from train.data.shards import Shards
from train.loader import Batches, Place, loader

FIRST = Place(phase="only", size=3, seed=5, order=0, number=0, process=0, processes=2)
# Windows of A and of B, and the voxels of their volumes.
COUNTS = {"A": 7, "B": 4}
VOXELS = {"A": 4, "B": 6}


def two() -> WindowRows:
    draws = np.random.default_rng(0)
    windows = table(
        *((s, f"run-{n // 3}", f"{n}", False) for s, count in COUNTS.items() for n in range(count))
    )
    volumes = [draws.normal(5, 2, (5, VOXELS[s])).astype(np.float32) for s in windows.subject.tolist()]
    # The first value of a window's EEG tells which window it is.
    eeg = [np.full((2, 8), n, np.float32) for n in range(11)]
    data = Held(windows, {"fmri": volumes, "eeg": eeg})
    rows = np.arange(11)
    return WindowRows(data, rows, standard.statistics(data, rows))


def number(rows: WindowRows, batch: dict[str, torch.Tensor]) -> list[int]:
    """Which windows a batch holds."""
    found = []
    for eeg, subject in zip(batch["eeg"][:, 0, 0].tolist(), batch["subject"].tolist(), strict=True):
        known = rows.statistics[rows.subjects[subject]]
        found.append(round(eeg * known.deviation["eeg"][0] + known.mean["eeg"][0]))
    return found


def test_a_batch_is_of_the_participant_of_its_place_and_is_standardised() -> None:
    rows = two()
    for n, name in ((0, "A"), (0, "B"), (1, "A")):
        batch = rows(replace(FIRST, number=n, participant=name))
        assert [rows.subjects[k] for k in batch["subject"].tolist()] == [name] * FIRST.size
        windows = number(rows, batch)
        assert {*rows.data.windows.subject[windows].tolist()} == {name}
        expected = rows.statistics[name].standardised("fmri", rows.data.read("fmri", windows))
        assert batch["fmri"].dtype == torch.float32
        np.testing.assert_array_equal(batch["fmri"].numpy(), expected)


def test_an_epoch_of_a_participant_takes_each_window_once_and_each_epoch_has_its_own_order() -> None:
    rows = two()
    for name, count in COUNTS.items():
        # As many batches of three rows as fill three epochs; two processes share them.
        turns = [rows(replace(FIRST, number=n // 2, process=n % 2, participant=name)) for n in range(count)]
        order = [window for batch in turns for window in number(rows, batch)]
        epochs = [order[n : n + count] for n in range(0, len(order), count)]
        assert len(epochs) == 3
        windows = np.flatnonzero(rows.data.windows.subject == name).tolist()
        assert all(sorted(epoch) == windows for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_a_place_that_names_nobody_with_windows_is_refused_where_there_are_several() -> None:
    rows = two()
    for name in ("", "C"):
        with refused(UsageError, "draw-unknown-participant", participant=name, available=["A", "B"]):
            rows(replace(FIRST, participant=name))
    alone = replace(rows, rows=rows.rows[:7])
    assert {*rows.data.windows.subject[number(alone, alone(FIRST))].tolist()} == {"A"}


def test_a_place_always_gets_the_same_batch() -> None:
    rows = two()
    place = replace(FIRST, participant="B")
    batch = rows(place)
    again = pickle.loads(pickle.dumps(rows))(place)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batch["eeg"], rows(replace(place, seed=6))["eeg"])


def test_latents_come_from_shards_by_window_or_by_what_was_shown(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(6.0))
    np.savez(tmp_path / "b.npz", x=np.arange(6.0, 11.0))
    shards = Shards([tmp_path / "a.npz", tmp_path / "b.npz"], "x")
    rows = replace(two(), latents={"x": shards})
    place = replace(FIRST, participant="A")
    batch = rows(place)
    assert batch["x"].tolist() == number(rows, batch)
    shown = rows.data.windows.shown.astype(np.int64)
    batch = replace(rows, latent_of=shown)(place)
    assert batch["x"].tolist() == [shown[k] for k in number(rows, batch)]
    with refused(UsageError, "latent-too-few-rows", latent="x", rows=11, needed_row=11):
        replace(rows, latent_of=np.arange(1, 12))


def test_statistics_and_columns_that_are_not_there_are_named() -> None:
    rows = two()
    with refused(UsageError, "statistics-missing-subject", subjects=["B"]):
        replace(rows, statistics={"A": rows.statistics["A"]})
    with refused(UsageError, "draw-missing-column", columns=["clips"]):
        replace(rows, columns=["fmri", "clips"])
    with refused(UsageError, "draw-no-windows"):
        replace(rows, rows=rows.rows[:0])


def test_a_release_is_drawn_by_the_loader_of_a_training(tmp_path: Path) -> None:
    release.write(tmp_path, places=[0, 1, 4860])
    data = opened(tmp_path)
    split = splits.released(data.windows)
    rows = WindowRows(data, split.train, standard.statistics(data, split.train), ["eeg", "fmri", "clips"])
    place = Place(phase="only", size=2, seed=0, order=0, number=0)
    drawn = list(loader(Batches(rows, place, rows.subjects), 0, 2, workers=0, prefetch=2))
    assert {tuple(batch["eeg"].shape) for batch in drawn} == {(2, 64, 4000)}
    assert {tuple(batch["fmri"].shape) for batch in drawn} == {(2, 5, release.VOXELS)}
    assert {tuple(batch["clips"].shape) for batch in drawn} == {(2, 33, 48, 64, 3)}
    assert sorted(int(batch["subject"][0]) for batch in drawn) == [0, 1]
