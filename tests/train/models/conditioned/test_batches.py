"""Batches of a phase: each has what its losses need, and depends on its place alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.models.conditioned.batches import Dropout, Windows, batch, draw_rows
from train.trainer.loader import Place

_COUNT = 300
_ALL = Dropout(words=0.0, modalities=[1.0, 0.0, 0.0, 0.0])
_LOSSES = {
    "pretrain": ["video"],
    "align": ["fmri_frames", "fmri_eeg"],
    "diffuse": ["denoising"],
    "distill": ["flow_map"],
}


def windows() -> Windows:
    rng = np.random.default_rng(0)

    def values(*shape: int) -> Any:
        return rng.standard_normal((_COUNT, *shape), np.float32) + 3

    signals = {"eeg": values(3, 10), "fmri": values(2, 7)}
    signals |= {"eeg_mask": np.ones((_COUNT, 10)), "fmri_mask": np.ones((_COUNT, 2))}
    stats = {
        "eeg_mean": np.full(3, 3.0),
        "eeg_scale": np.full(3, 2.0),
        "fmri_mean": np.full(7, 100.0),
        "fmri_scale": np.full(7, 4.0),
    }
    words = np.arange(2 * _COUNT).reshape(_COUNT, 2, 1) + 1
    return Windows(values(4, 3, 2, 2), words, values(5, 6), values(6), signals, stats)


def place(phase: str, size: int = 8, number: int = 0) -> Place:
    return Place(phase=phase, size=size, seed=1, order=0, number=number)


def test_each_phase_gets_what_its_losses_need() -> None:
    signals = {"eeg", "eeg_mask", "fmri", "fmri_mask"}
    noised = {"latents", "noise", "level", "left"}
    batch_keys = {phase: {*batch(windows(), _ALL, _LOSSES, place(phase))} for phase in _LOSSES}
    assert batch_keys == {
        "pretrain": noised | {"words"},
        "align": signals | {"frames", "text"},
        "diffuse": noised | signals,
        "distill": noised | signals,
    }


def test_a_frame_is_drawn_by_itself_with_its_caption() -> None:
    teaching = windows()
    frames_batch = batch(teaching, _ALL, {"frames": ["frame"]}, place("frames", 50))
    assert {*frames_batch} == {"latents", "noise", "level", "left", "words"}
    assert frames_batch["latents"].shape == frames_batch["noise"].shape == (50, 4, 1, 2, 2)
    rows = place("frames", 50).rows(_COUNT)
    # Each is one of the clip's latent frames, and all of these are picked.
    is_frame = frames_batch["latents"].numpy() == teaching.latents[rows]
    picked = is_frame.all((1, 3, 4))
    assert picked.sum(1).tolist() == [1] * 50
    assert picked.any(0).all()


def test_a_batch_has_no_two_windows_of_one_shot_where_there_are_others() -> None:
    shots = np.arange(_COUNT) // 10
    chosen = draw_rows(replace(windows(), shots=shots), place("align", 20))
    as_drawn = place("align", 20).rows(_COUNT)
    assert len({*shots[as_drawn].tolist()}) < 18
    assert len({*shots[chosen].tolist()}) >= 19
    # Those whose shot is new stay.
    _, firsts = np.unique(shots[as_drawn], return_index=True)
    assert (chosen == as_drawn).sum() >= len(firsts) - 2
    # With one shot alone there is nothing else to take.
    assert draw_rows(replace(windows(), shots=0 * shots), place("align", 20)).tolist() == as_drawn.tolist()


def test_a_student_learns_on_the_first_windows_alone() -> None:
    all_windows = windows()
    examples = batch(all_windows, _ALL, _LOSSES, place("distill", size=40), count=20)
    taught = {values.tobytes() for values in all_windows.latents[:20]}
    assert {values.numpy().tobytes() for values in examples["latents"]} == taught
    assert (examples["left"] == (examples["level"] + 1) / 1000).all()


def test_batches_are_drawn_from_the_windows_that_teach() -> None:
    all_windows = replace(windows(), teaching=np.arange(0, _COUNT, 30))
    teaching_batch = batch(all_windows, _ALL, _LOSSES, place("diffuse", size=40))
    taught = {values.tobytes() for values in all_windows.latents[::30]}
    assert {values.numpy().tobytes() for values in teaching_batch["latents"]} == taught


@pytest.mark.parametrize("phase", _LOSSES)
def test_the_same_place_has_the_same_batch(phase: str) -> None:
    dropout = Dropout(words=0.5, modalities=[0.25] * 4)
    first = batch(windows(), dropout, _LOSSES, place(phase))
    again = batch(windows(), dropout, _LOSSES, place(phase))
    other = batch(windows(), dropout, _LOSSES, place(phase, number=1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_signals_are_normalised_by_what_teaches() -> None:
    all_windows = windows()
    normalised = all_windows.normalised(np.array([4]))
    assert np.allclose(normalised["eeg"][0], (all_windows.signals["eeg"][4] - 3) / 2)
    # Volumes are relative to their resting level already.
    assert np.allclose(normalised["fmri"][0], all_windows.signals["fmri"][4] / 4)


def test_modalities_are_left_out_in_their_shares_where_videos_are_drawn() -> None:
    dropout = Dropout(words=0.0, modalities=[0.4, 0.3, 0.2, 0.1])
    examples = batch(windows(), dropout, _LOSSES, place("diffuse", size=_COUNT))
    fmri = examples["fmri_mask"].amax(1).numpy() > 0
    eeg = examples["eeg_mask"].amax(1).numpy() > 0
    shares = [(fmri & eeg).mean(), (fmri & ~eeg).mean(), (~fmri & eeg).mean(), (~fmri & ~eeg).mean()]
    assert shares == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.06)
    assert (examples["eeg"][torch.from_numpy(~eeg)] == 0).all()
    # The encoders are aligned on whole windows.
    aligned = batch(windows(), dropout, _LOSSES, place("align", size=_COUNT))
    assert aligned["eeg_mask"].min() == 1


def test_voxels_and_channels_are_left_out_in_their_shares() -> None:
    dropout = Dropout(words=0.0, modalities=[1.0, 0.0, 0.0, 0.0], voxels=0.3, channels=0.5)
    examples = batch(windows(), dropout, _LOSSES, place("align", size=_COUNT))
    for name, axis, share in (("fmri", 1, 0.3), ("eeg", 2, 0.5)):
        gone = (examples[name] == 0).numpy()
        # A voxel or a channel is left out throughout its window.
        assert (gone.all(axis) == gone.any(axis)).all()
        assert gone.mean() == pytest.approx(share, abs=0.05)
    assert not (batch(windows(), _ALL, _LOSSES, place("align", size=_COUNT))["eeg"] == 0).any()


def test_windows_are_mixed_in_their_share_and_never_where_videos_are_drawn() -> None:
    dropout = Dropout(words=0.0, modalities=[1.0, 0.0, 0.0, 0.0], mixed=0.5)
    plain = batch(windows(), _ALL, _LOSSES, place("align", size=_COUNT))
    mixed = batch(windows(), dropout, _LOSSES, place("align", size=_COUNT))
    mixture = mixed["mixture"]
    torch.testing.assert_close(mixture.sum(1), torch.ones(_COUNT))
    # A few windows are mixed with themselves, or with next to nothing of another.
    assert (mixture.diagonal() < 1).float().mean() == pytest.approx(0.5, abs=0.08)
    flat = plain["fmri"].flatten(1)
    torch.testing.assert_close(mixed["fmri"].flatten(1), mixture @ flat, atol=1e-5, rtol=1e-4)
    assert "mixture" not in batch(windows(), dropout, _LOSSES, place("diffuse"))


def test_latents_are_drawn_anew_where_their_deviations_are_known() -> None:
    plain = windows()
    spread = replace(plain, deviations=np.full(plain.latents.shape, 0.5, np.float16))
    size = _COUNT
    sampled = batch(spread, _ALL, _LOSSES, place("diffuse", size))
    modes = batch(plain, _ALL, _LOSSES, place("diffuse", size))
    moved = (sampled["latents"] - modes["latents"]).numpy()
    assert moved.mean() == pytest.approx(0, abs=0.02)
    assert moved.std() == pytest.approx(0.5, abs=0.02)
    # All else that is drawn stays what it was.
    assert torch.equal(sampled["noise"], modes["noise"])
    next_epoch = batch(spread, _ALL, _LOSSES, place("diffuse", size, number=1))
    assert not np.allclose(np.sort(next_epoch["latents"], axis=0), np.sort(sampled["latents"], axis=0))


def test_a_passage_of_each_caption_is_drawn_anew() -> None:
    plain = windows()
    # Each passage says its own number; the first caption has one, the others have three.
    text = np.tile(np.arange(4, dtype=np.float32)[:, None], (_COUNT, 1, 6))
    passages = np.where(np.arange(_COUNT) == 0, 1, 3)
    of_passages = replace(plain, text=text, passages=passages)
    here = place("align", _COUNT)
    numbers = batch(of_passages, _ALL, _LOSSES, here)["text"][:, 0].numpy()
    rows = here.rows(_COUNT)
    assert numbers[rows == 0] == 0
    assert np.bincount(numbers.astype(int)) / _COUNT == pytest.approx([1 / 3] * 3, abs=0.08)
    again = batch(of_passages, _ALL, _LOSSES, place("align", _COUNT, number=1))["text"][:, 0].numpy()
    order = np.argsort(place("align", _COUNT, number=1).rows(_COUNT))
    assert (again[order] != numbers[np.argsort(rows)]).mean() > 0.5


def test_captions_are_left_out_in_their_share() -> None:
    dropout = Dropout(words=0.25, modalities=[1.0, 0.0, 0.0, 0.0])
    words = batch(windows(), dropout, _LOSSES, place("pretrain", size=_COUNT))["words"]
    without = (words == 0).all((1, 2)).float().mean().item()
    assert without == pytest.approx(0.25, abs=0.08)
    assert ((words == 0).all((1, 2)) | (words > 0).all((1, 2))).all()


def test_shares_that_do_not_add_up_are_refused() -> None:
    with refused(UsageError, "dropout-modalities-invalid", shares=[0.5, 0.5, 0.5, 0.5]):
        Dropout(words=0.1, modalities=[0.5, 0.5, 0.5, 0.5])
    with refused(UsageError, "dropout-share-out-of-range", key="voxels", share=1.0):
        Dropout(words=0.1, modalities=[1.0, 0.0, 0.0, 0.0], voxels=1.0)
