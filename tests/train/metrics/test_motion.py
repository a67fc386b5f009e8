"""Motion energy of textures that move as told."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from train.metrics.layout import agreement
from train.metrics.motion import DIRECTIONS, direction_error, motion_energy, opponent

STILL = np.zeros((32, 64, 96, 3), np.uint8)


def moving(degrees: float, speed: float, frames: int = 32) -> np.ndarray:
    """A texture that moves by so many pixels a frame."""
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((128, 160)), 1.5, mode="wrap")
    texture = 128 + 40 * noise / noise.std()
    right = speed * np.cos(np.deg2rad(degrees))
    up = speed * np.sin(np.deg2rad(degrees))
    shots = [shift(texture, (-up * n, right * n), order=1, mode="grid-wrap") for n in range(frames)]
    grey = np.stack(shots)[:, 32:96, 32:128]
    return np.repeat(np.clip(grey, 0, 255)[..., None], 3, axis=3).astype(np.uint8)


@pytest.mark.parametrize("speed", [0.5, 2.0, 4.0])
def test_energy_moves_in_the_direction_of_the_texture(speed: float) -> None:
    angles_deg = [0, 90, 225]
    energies = motion_energy([moving(degrees, speed) for degrees in angles_deg])
    assert energies.shape == (3, 8, 4, 6)
    total = energies.mean(axis=(2, 3))
    sums = total @ np.exp(1j * np.deg2rad(DIRECTIONS))
    off = np.angle(sums / np.exp(1j * np.deg2rad(angles_deg)), deg=True)
    assert np.abs(off).max() < 10
    # The opposite direction has less than a tenth of the energy.
    opposite = total[[0, 1, 2], [4, 6, 1]]
    assert (opposite < total.max(axis=1) / 10).all()


def test_energy_lies_where_something_moves() -> None:
    clip = np.full_like(STILL, 128)
    clip[:, :16, :16] = moving(0, 2)[:, :16, :16]
    energy = motion_energy([clip])[0].sum(axis=0)
    assert energy.argmax() == 0
    assert energy[0, 0] > 20 * np.median(energy)


def test_what_stands_still_has_no_energy_and_a_cut_no_direction() -> None:
    still = np.repeat(moving(0, 2)[:1], 32, axis=0)
    assert motion_energy([still]).max() < 1e-3
    cut = still.copy()
    cut[16:] = 255 - cut[16:]
    energies = motion_energy([cut])
    assert energies.max() > 100
    assert np.abs(opponent(energies)).max() < 1e-2 * np.sqrt(energies.max())


def test_the_direction_error_is_the_angle_between_motions() -> None:
    film = motion_energy([moving(90, 2)] * 4)
    clips = motion_energy([moving(90, 2), moving(135, 1), moving(270, 2), STILL])
    error, moves = direction_error(clips, film)
    assert error[0] == pytest.approx(0, abs=1e-6)
    assert error[1] == pytest.approx(45, abs=15)
    assert error[2] == pytest.approx(180, abs=20)
    # Nothing is drawn that moves, which is as good as a guess.
    assert error[3] == 90
    assert moves.tolist() == [24] * 4
    # Where the film stands still there is no direction to be found.
    nowhere, none = direction_error(film, motion_energy([STILL] * 4))
    assert np.isnan(nowhere).all()
    assert not none.any()


def test_flicker_is_no_motion() -> None:
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((6, 32, 64, 96)), (0, 0, 1.5, 1.5))
    flicker = 128 + 20 * noise[..., None] / noise.std() * np.ones(3)
    energies = motion_energy(list(flicker))
    assert energies.mean() > 1
    assert direction_error(energies, energies)[1].mean() < 1


def test_a_constant_clip_correlates_with_no_motion() -> None:
    film = opponent(motion_energy([moving(degrees, 2) for degrees in (0, 80, 200, 300)]))
    np.testing.assert_allclose(agreement(film, film), 1)
    assert not agreement(film[[0, 0, 0, 0]], film).any()
