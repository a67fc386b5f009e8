"""The space of clips: what lies in it is drawn again from its targets."""

import numpy as np
import pytest

from train.models.compact.space import Seen, Space, fit_space, principal_components

CLIPS = 60
COMPONENTS = 5
AXES = 4


@pytest.fixture(scope="module")
def seen() -> Seen:
    """Clips that few numbers describe; the tensor's channels differ a thousandfold."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(CLIPS, COMPONENTS)) @ rng.normal(size=(COMPONENTS, 4 * 3 * 2 * 3)) + 7
    tensor = rng.normal(size=(CLIPS, AXES)) @ rng.normal(size=(AXES, 6 * 2 * 2 * 3))
    sizes = np.logspace(-3, 0, 6)[:, None, None, None]
    return Seen(
        latents.reshape(CLIPS, 4, 3, 2, 3),
        tensor.reshape(CLIPS, 6, 2, 2, 3) * sizes + 3,
        rng.random(CLIPS) < 0.3,
    )


@pytest.fixture(scope="module")
def space(seen: Seen) -> Space:
    return fit_space(seen, COMPONENTS, AXES)


def test_targets_are_standardised_and_draw_the_clip_again(seen: Seen, space: Space) -> None:
    targets = space.targets(seen)
    assert targets.shape == (CLIPS, COMPONENTS + AXES + 1)
    np.testing.assert_allclose(targets.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(targets.std(0), 1, rtol=1e-6)
    raw = targets * space.scale + space.mean
    latents = space.latent_mean + raw[:, :COMPONENTS] @ space.basis
    np.testing.assert_allclose(latents, seen.latents.reshape(CLIPS, -1), atol=1e-3)
    varied = raw[:, COMPONENTS:-1] @ space.structure_basis * space.structure_scale + space.structure_mean
    np.testing.assert_allclose(varied, seen.structure.reshape(CLIPS, -1), atol=1e-3)
    np.testing.assert_array_equal(raw[:, -1] > 0.5, seen.cut)


def test_both_bases_are_orthonormal(space: Space) -> None:
    for basis in (space.basis, space.structure_basis):
        np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-4)


def test_no_channel_of_the_tensor_outweighs_the_others(seen: Seen, space: Space) -> None:
    standard = (seen.structure.reshape(CLIPS, -1) - space.structure_mean) / space.structure_scale
    power = np.square(standard).reshape(CLIPS, 6, -1).mean((0, 2))
    np.testing.assert_allclose(power, 1, rtol=1e-3)


def test_clips_are_placed_one_by_one_as_together(seen: Seen, space: Space) -> None:
    one = space.targets(seen.part(slice(7, 8)))
    np.testing.assert_allclose(one, space.targets(seen)[7:8])


def test_films_that_never_cut_have_a_space(seen: Seen) -> None:
    still = Seen(seen.latents, seen.structure, np.zeros(CLIPS, bool))
    targets = fit_space(still, COMPONENTS, AXES).targets(still)
    assert np.isfinite(targets).all()
    assert not targets[:, -1].any()


def test_principal_components_come_in_the_order_of_their_spread() -> None:
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(30, 50)) * np.linspace(5, 0.1, 50)).astype(np.float32)
    mean, basis, scores = principal_components(x, 4)
    np.testing.assert_allclose((x - mean) @ basis.T, scores, atol=1e-3)
    assert (np.diff(scores.var(0)) < 0).all()
    _, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.square(scores).sum(0), s[:4] ** 2, rtol=1e-4)
