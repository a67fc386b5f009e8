"""The shared cortex: a sheet whose neighbours are neighbours, and fields that participants have in common."""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import KDTree

from rtdecode.errors import UsageError
from rtdecode.phantom.body import brain, cortex
from rtdecode.phantom.body.scanner import CENTRE, NEAR_MM, Scanner, head, near_maps
from rtdecode.phantom.film.features import FEATURES, feature_blocks
from rtdecode.phantom.session import PhantomSession
from tests.refusals import refused

Reals = NDArray[np.float64]


def places_of(number: int) -> Reals:
    """Return where a participant's voxels lie from the middle of the head, (voxel, 3), mm."""
    place = head(number, cortex="shared")
    index = np.stack(np.unravel_index(place.voxels, place.shape))
    return (place.affine[:3, :3] @ index).T + place.affine[:3, 3] - np.array(CENTRE)


def test_a_mixed_cortex_is_what_it_was() -> None:
    # Digests of what shipped bundles were trained on, from before there was another cortex.
    voxels = hashlib.sha256(head(1).voxels.tobytes()).hexdigest()
    driven = hashlib.sha256(np.packbits(brain.subject(1).weights != 0).tobytes()).hexdigest()
    assert voxels.startswith("792df8db221b5613")
    assert driven.startswith("7c3f9e1e9e6e69be")
    assert brain.subject(1).near == 0
    plain = PhantomSession("easy", 1, 20, 4)
    mixed = PhantomSession("easy", 1, 20, 4, cortex="mixed")
    shared = PhantomSession("easy", 1, 20, 4, cortex="shared")
    assert plain.uid == mixed.uid != shared.uid
    assert np.array_equal(plain.vectors(), mixed.vectors())


def test_areas_have_their_sizes_and_come_in_the_order_of_the_hierarchy() -> None:
    on = cortex.sheet()
    assert len(on.area) == brain.VOXELS
    assert np.all(np.diff(on.area) >= 0)
    assert np.all(np.diff(cortex.STAGES) >= 0)
    regions = cortex.regions()
    # Vertices of the parcellation, of 8405.
    for name, vertices in {"V1": 1618, "V4": 661, "LO1": 80, "FFC": 318}.items():
        assert abs(regions[name].sum() - vertices / 8405 * brain.VOXELS) <= 2
    assert sum(regions[name].sum() for name in cortex.AREAS) == brain.VOXELS
    assert regions["early"].mean() == pytest.approx(0.55, abs=0.03)
    assert regions["high"].mean() == pytest.approx(0.20, abs=0.03)


def test_neighbours_on_the_sheet_are_neighbours_in_the_head() -> None:
    on = cortex.sheet()
    places = places_of(2)
    assert len({*head(2, cortex="shared").voxels.tolist()}) == brain.VOXELS
    assert np.isin(head(2, cortex="shared").voxels, head(2).brain).all()
    for right in (False, True):
        here = on.right == right
        pairs = KDTree(on.place[here]).query_pairs(4.5, output_type="ndarray")
        distance = np.linalg.norm(np.diff(places[here][pairs], axis=1)[:, 0], axis=1)
        assert len(pairs) > 1500
        assert np.median(distance) < 5
        assert np.quantile(distance, 0.95) < 8
        assert np.all(places[here, 0] > 0) if right else np.all(places[here, 0] < 0)


def test_the_sheet_sees_the_picture_as_people_do() -> None:
    on = cortex.sheet()
    centre, size = cortex.population_fields(on.place, on.right)
    away = np.hypot(*centre.T)
    # The left hemisphere sees what is right, and the lower half of the sheet what is below.
    assert np.all(centre[on.right, 0] <= 1e-9)
    assert np.all(centre[~on.right, 0] >= -1e-9)
    assert np.all(centre[:, 1] * on.place[:, 1] >= -1e-9)
    # The magnification is how far one comes on the sheet for a degree.
    step = np.array([[0.0, 30.0], [0.0, 30.1]])
    degrees = cortex.eccentricity(step)
    assert 0.1 / np.ptp(degrees) == pytest.approx(17.3 / (degrees.mean() + 0.75), rel=1e-3)
    assert away.max() < 11
    # Fields grow with eccentricity, and from area to area.
    v1, v4 = (on.area == cortex.AREAS.index(name) for name in ("V1", "V4"))
    assert np.corrcoef(away[v1], size[v1])[0, 1] > 0.99
    assert size[v4].mean() > 2 * size[v1].mean()


def test_the_field_is_as_wide_as_it_says() -> None:
    # Many fields at places in pairs, at an eccentricity where the width hardly changes over a pair.
    distance = np.array([2.0, 4.0, 8.0])
    first = np.tile([40.0, 35.0], (len(distance), 1))
    second = first + np.stack([distance, np.zeros(len(distance))], axis=1)
    place = np.concatenate([first, second])
    width = cortex.smoothness(place)
    right = np.zeros(len(place), bool)
    fields = cortex.smooth_fields(place, right, width, 1000, np.random.default_rng(1))
    assert np.allclose(fields.std(axis=1), 1, atol=0.05)
    correlation = [np.corrcoef(*pair)[0, 1] for pair in zip(fields[:3], fields[3:], strict=True)]
    # The Gaussian of a field is narrower than that of its correlation by the square root of 2.
    assert np.allclose(correlation, np.exp(-(distance**2) / (4 * width[0] ** 2)), atol=0.08)
    # In the periphery the point spread counts most, in the fovea what is magnified.
    edge, fovea = cortex.smoothness(np.array([[40.0, 47.0], [40.0, 0.0]]))
    assert edge > cortex.POINT_SPREAD_MM / 2.355
    assert edge < 3.5 < fovea


def test_displacements_are_smooth_and_everybodys_own() -> None:
    on = cortex.sheet()
    many = np.stack([cortex.displacement(number) for number in range(1, 9)])
    length = np.sqrt(np.square(many).sum(axis=2).mean())
    assert length == pytest.approx(cortex.DISPLACEMENT_MM, rel=0.1)
    assert abs(np.corrcoef(many[0].ravel(), many[1].ravel())[0, 1]) < 0.5
    vertices = np.flatnonzero(~on.right)
    reach = cortex.DISPLACEMENT_REACH_MM
    pairs = KDTree(on.place[vertices]).query_pairs(reach + 1, output_type="ndarray")
    far = np.linalg.norm(np.diff(on.place[vertices][pairs], axis=1)[:, 0], axis=1) > reach - 1
    ends = many[:, vertices[pairs[far]]]
    correlation = (ends[:, :, 0] * ends[:, :, 1]).sum(axis=2).mean() / length**2
    assert correlation == pytest.approx(np.exp(-0.5), abs=0.1)


def test_participants_have_one_field_but_for_their_displacement(monkeypatch: pytest.MonkeyPatch) -> None:
    # Early, middle and high areas, by block of features.
    blocks = [[0.35, 0.35, 0.25, 0.03], [0.25, 0.25, 0.35, 0.2], [0.1, 0.1, 0.1, 0.6]]
    chances = np.array(blocks)[:, feature_blocks()]
    first, second = (brain.subject(number, "shared").weights for number in (1, 2))
    order = np.random.default_rng(0).permutation(brain.VOXELS)
    assert _alike(first, second) > 0.4
    assert abs(_alike(first, second[order])) < 0.05
    assert abs(_alike(*(brain.subject(number).weights for number in (1, 2)))) < 0.02
    monkeypatch.setattr(cortex, "displacement", lambda _number: np.zeros((brain.VOXELS, 2)))
    still = cortex.shared_weights(1, chances)
    assert np.array_equal(still, cortex.shared_weights(2, chances))
    # Without displacement each feature drives the very share of a stage's vertices that it drives in a mixed
    # cortex, with as much weight.
    for stage, share in enumerate(chances):
        weights = still[cortex.STAGES[cortex.sheet().area] == stage]
        assert np.allclose((weights != 0).mean(axis=0), share, atol=0.003)
        assert np.square(weights).sum() / np.count_nonzero(weights) == pytest.approx(1)


def test_no_voxel_is_silent_and_as_many_are_driven() -> None:
    for number in (1, 2):
        weights = brain.subject(number, "shared").weights
        assert np.all((weights != 0).any(axis=1))
        assert (weights != 0).mean() == pytest.approx((brain.subject(number).weights != 0).mean(), abs=0.02)


def test_a_feature_drives_early_voxels_whose_receptive_fields_it_overlaps() -> None:
    """A feature on the left of the picture drives more of the right hemisphere's early voxels."""
    on = cortex.sheet()
    early = cortex.regions()["early"]
    driven = brain.subject(1, "shared").weights != 0
    rows = 8
    columns = 12
    windows = cortex.receptive_fields().reshape(FEATURES, rows, columns).sum(axis=1)
    leftward = windows[:, : columns // 2].sum(axis=1) - windows[:, columns // 2 :].sum(axis=1)
    right = driven[early & on.right].mean(axis=0) - driven[early & ~on.right].mean(axis=0)
    narrow = np.abs(leftward) > 0.2
    assert np.corrcoef(leftward[narrow], right[narrow])[0, 1] > 0.6


def test_neighbours_share_half_of_their_own_noise() -> None:
    place = head(1, cortex="shared")
    maps = near_maps(place, 1).astype(np.float64)
    assert np.square(maps).sum(axis=0).mean() == pytest.approx(1, abs=0.05)
    pairs = KDTree(places_of(1)).query_pairs(NEAR_MM + 0.5, output_type="ndarray")
    distance = np.linalg.norm(np.diff(places_of(1)[pairs], axis=1)[:, 0], axis=1)
    together = (maps[:, pairs[:, 0]] * maps[:, pairs[:, 1]]).sum(axis=0)
    assert together[distance < 4].mean() > 0.85
    assert together[distance > NEAR_MM - 0.5].mean() == pytest.approx(np.exp(-0.5), abs=0.08)
    # In volumes: of participants who see nothing, neighbours are more alike than in a mixed cortex.
    assert _neighbours_alike("shared") > _neighbours_alike("mixed") + 0.02


def test_participants_who_watch_one_film_are_alike_vertex_by_vertex() -> None:
    session = PhantomSession("easy", 1, 25, 120)
    v1 = cortex.regions()["V1"]
    for kind, low, high in (("shared", 0.05, 0.3), ("mixed", -0.04, 0.04)):
        first, second = (_watching(session, number, kind) for number in (1, 2))
        assert low < (first * second).mean(axis=0)[v1].mean() < high


def test_another_cortex_is_refused() -> None:
    with refused(UsageError, "phantom-cortex-unknown", available=["mixed", "shared"], cortex="smooth"):
        PhantomSession("easy", cortex="smooth")


def _alike(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the mean over voxels of the cosine between two participants' weights."""
    dots = (first * second).sum(axis=1)
    return float((dots / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)).mean())


def _watching(session: PhantomSession, number: int, kind: str) -> Reals:
    rng = np.random.default_rng((number, 5))
    state = brain.neural_state(session.features, session.preset.feature_noise, 10.0, rng)
    return _series(session, number, kind, state)


def _series(session: PhantomSession, number: int, kind: str, state: NDArray[np.float32]) -> Reals:
    place = head(number, cortex=kind)
    person = brain.subject(number, kind)
    scan = Scanner(place, person, session.preset, state, session.volumes, 40 + number)
    values = np.stack([scan.volume(n).reshape(-1)[place.voxels] for n in range(10, session.volumes)])
    slow = np.polynomial.polynomial.polyvander(np.linspace(-1, 1, len(values)), 2)
    values = values - slow @ np.linalg.lstsq(slow, values, rcond=None)[0]
    return values / values.std(axis=0)


def _neighbours_alike(kind: str) -> float:
    """Return the mean correlation of voxels within 5 mm while the state is silent."""
    session = PhantomSession("easy", 1, 26, 100, cortex=kind)
    # A brain without activity still has its scale, so that only noise is left.
    values = _series(session, 1, kind, np.zeros_like(session.state))
    index = np.stack(np.unravel_index(session.head.voxels, session.head.shape), axis=1) * 3.0
    pairs = KDTree(index).query_pairs(5.0, output_type="ndarray")
    return float((values[:, pairs[:, 0]] * values[:, pairs[:, 1]]).mean())
