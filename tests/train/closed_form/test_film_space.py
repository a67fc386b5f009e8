"""The space of clips: what lies in it is drawn again from its glimpses, and its glimpses from a point."""

import numpy as np
import pytest

from train.closed_form.components import principal_components
from train.closed_form.film_space import ClipTargets, Space, SpaceSizes, fit_space, frames_of

CLIPS = 60
FRAMES = 3
PICTURES = 5
VARIATIONS = 4
COMPONENTS = 8
SIZES = SpaceSizes(PICTURES, VARIATIONS)


@pytest.fixture(scope="module")
def clips() -> ClipTargets:
    """Clips that few numbers describe; the tensor's channels differ a thousandfold."""
    rng = np.random.default_rng(0)
    story = rng.normal(size=(CLIPS, COMPONENTS))
    latents = (story @ rng.normal(size=(COMPONENTS, FRAMES * PICTURES))).reshape(CLIPS, FRAMES, PICTURES)
    tensor = (story @ rng.normal(size=(COMPONENTS, 2 * VARIATIONS))).reshape(CLIPS, 2, VARIATIONS)
    frames = latents @ rng.normal(size=(PICTURES, 4 * 2 * 3)) + 7
    varied = tensor @ rng.normal(size=(VARIATIONS, 6 * 2 * 3))
    sizes = np.logspace(-3, 0, 6)[:, None, None, None]
    return ClipTargets(
        np.moveaxis(frames.reshape(CLIPS, FRAMES, 4, 2, 3), 1, 2),
        np.moveaxis(varied.reshape(CLIPS, 2, 6, 2, 3), 1, 2) * sizes + 3,
    )


@pytest.fixture(scope="module")
def space(clips: ClipTargets) -> Space:
    return fit_space(clips, SIZES, COMPONENTS)


def test_a_clip_is_drawn_again_from_its_glimpses(clips: ClipTargets, space: Space) -> None:
    glimpses = space.glimpses(clips)
    assert glimpses.shape == (CLIPS, FRAMES, PICTURES + VARIATIONS)
    np.testing.assert_allclose(space.draw(glimpses, (2, 3)), clips.latents, atol=1e-3)
    structure = glimpses[:, 1:, PICTURES:] @ space.variations * space.structure_scale + space.structure_mean
    np.testing.assert_allclose(structure, frames_of(clips.structure), atol=1e-3)
    np.testing.assert_array_equal(glimpses[:, 0, PICTURES:], glimpses[:, 1, PICTURES:])


def test_glimpses_are_told_by_the_point_whose_components_are_standardised(
    clips: ClipTargets, space: Space
) -> None:
    points = space.targets(clips)
    assert points.shape == (CLIPS, COMPONENTS)
    np.testing.assert_allclose(points.std(0), 1, rtol=1e-3)
    assert (np.diff(space.scale) < 0).all(), "the most telling component comes first"
    about = points - points.mean(0)
    glimpses = space.glimpses(clips)
    np.testing.assert_allclose(space.led(about), glimpses - glimpses.mean(0), atol=2e-2)
    np.testing.assert_allclose(space.points(space.led(points)), points, atol=1e-6)


def test_what_varies_has_half_the_variance_of_the_pictures(clips: ClipTargets, space: Space) -> None:
    glimpses = space.glimpses(clips)
    power = glimpses.var((0, 1))
    assert power[:PICTURES].sum() == pytest.approx(1, rel=1e-3)
    assert glimpses[:, 1:, PICTURES:].var((0, 1)).sum() == pytest.approx(0.5, rel=1e-3)


def test_no_channel_of_the_tensor_outweighs_the_others(clips: ClipTargets, space: Space) -> None:
    standard = (frames_of(clips.structure) - space.structure_mean) / space.structure_scale
    power = np.square(standard).reshape(CLIPS, 2, 6, -1).mean((0, 1, 3))
    assert power.max() < 2 * power.min()


def test_clips_are_placed_one_by_one_as_together(clips: ClipTargets, space: Space) -> None:
    single = space.targets(clips.part(slice(7, 8)))
    np.testing.assert_allclose(single, space.targets(clips)[7:8])


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
def test_principal_components_come_in_the_order_of_their_spread(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    x = (rng.normal(size=shape) * np.linspace(5, 0.1, shape[1])).astype(np.float32)
    mean, basis, scores = principal_components(x, 4)
    np.testing.assert_allclose((x - mean) @ basis.T, scores, atol=1e-3)
    np.testing.assert_allclose(basis @ basis.T, np.eye(4), atol=1e-5)
    assert (np.diff(scores.var(0)) < 0).all()
    _, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.square(scores).sum(0), s[:4] ** 2, rtol=1e-4)


@pytest.mark.parametrize("alike", [0, 3])
def test_there_are_no_more_principal_components_than_rows_differ_in(alike: int) -> None:
    rows = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    rows[:alike] = rows[0]
    mean, basis, scores = principal_components(rows, 10)
    assert len(basis) == (5 if alike == 0 else 3)
    np.testing.assert_allclose(mean + scores @ basis, rows, atol=1e-4)
