"""Batches of windows are standardised, of one subject each, and take every training window in an epoch."""

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
# Windows of A and of B, whose volumes have 4 and 6 voxels.
COUNTS = {"A": 7, "B": 4}


def two(voxels: tuple[int, int] = (4, 6)) -> WindowRows:
    draws = np.random.default_rng(0)
    windows = table(
        *((s, f"run-{n // 3}", f"{n}", False) for s, count in COUNTS.items() for n in range(count))
    )
    sizes = dict(zip(COUNTS, voxels, strict=True))
    volumes = [draws.normal(5, 2, (5, sizes[s])).astype(np.float32) for s in windows.subject.tolist()]
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


def test_a_batch_is_of_one_subject_says_which_and_is_standardised() -> None:
    rows = two()
    for n in range(4):
        batch = rows(replace(FIRST, number=n))
        [subject] = set(batch["subject"].tolist())
        known = rows.statistics[rows.subjects[subject]]
        windows = number(rows, batch)
        assert {rows.data.windows.subject[k] for k in windows} == {rows.subjects[subject]}
        expected = known.standardised("fmri", rows.data.read("fmri", windows))
        assert batch["fmri"].dtype == torch.float32
        np.testing.assert_array_equal(batch["fmri"].numpy(), expected)


def test_an_epoch_takes_every_window_and_each_epoch_has_its_own_order() -> None:
    rows = two()
    # 7 and 4 windows fill three and two batches of three; two processes share them.
    turns = [rows(replace(FIRST, number=n // 2, process=n % 2)) for n in range(10)]
    epochs = [[k for batch in part for k in number(rows, batch)] for part in (turns[:5], turns[5:])]
    for epoch in epochs:
        assert set(epoch) == set(range(11))
        assert len(epoch) == 15
    batches = [{frozenset(number(rows, batch)) for batch in part} for part in (turns[:5], turns[5:])]
    assert batches[0] != batches[1]


def test_subjects_take_turns_in_an_order_that_the_seed_chooses() -> None:
    rows = two()
    orders = {
        tuple(int(rows(replace(FIRST, number=n, processes=1, seed=seed))["subject"][0]) for n in range(5))
        for seed in range(6)
    }
    assert len(orders) > 1
    assert {tuple(sorted(order)) for order in orders} == {(0, 0, 0, 1, 1)}


def test_a_place_always_gets_the_same_batch() -> None:
    rows = two()
    one = rows(FIRST)
    again = pickle.loads(pickle.dumps(rows))(FIRST)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["eeg"], rows(replace(FIRST, seed=6))["eeg"])


def test_subjects_are_mixed_where_their_signals_have_the_same_shape() -> None:
    rows = two()
    with refused(UsageError, "batch-size-mismatch", signal_sizes=[(2, 4), (2, 6)]):
        replace(rows, mixed=True)
    rows = replace(two((4, 4)), mixed=True)
    batch = rows(replace(FIRST, size=11))
    assert set(batch["subject"].tolist()) == {0, 1}
    for n, window in enumerate(number(rows, batch)):
        subject = str(rows.data.windows.subject[window])
        assert rows.subjects[int(batch["subject"][n])] == subject
        expected = rows.statistics[subject].standardised("fmri", rows.data.read("fmri", [window]))[0]
        np.testing.assert_array_equal(batch["fmri"][n].numpy(), expected)


def test_latents_come_from_shards_by_window_or_by_what_was_shown(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(6.0))
    np.savez(tmp_path / "b.npz", x=np.arange(6.0, 11.0))
    shards = Shards([tmp_path / "a.npz", tmp_path / "b.npz"], "x")
    rows = replace(two(), latents={"x": shards})
    batch = rows(FIRST)
    assert batch["x"].tolist() == number(rows, batch)
    shown = rows.data.windows.shown.astype(np.int64)
    batch = replace(rows, latent_of=shown)(FIRST)
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
    drawn = list(loader(Batches(rows, place), 0, 2, workers=0, prefetch=2))
    assert {tuple(batch["eeg"].shape) for batch in drawn} == {(2, 64, 4000)}
    assert {tuple(batch["fmri"].shape) for batch in drawn} == {(2, 5, release.VOXELS)}
    assert {tuple(batch["clips"].shape) for batch in drawn} == {(2, 33, 48, 64, 3)}
    assert sorted(int(batch["subject"][0]) for batch in drawn) == [0, 1]
