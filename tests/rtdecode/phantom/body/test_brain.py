import numpy as np

from rtdecode.phantom.body import brain
from rtdecode.phantom.film.features import film_features
from rtdecode.phantom.film.film import FPS, Film


def test_the_response_peaks_after_five_seconds_and_dips_after_fifteen() -> None:
    t = np.arange(0, 32, 0.01)
    h = brain.haemodynamic_response(t)
    assert abs(t[h.argmax()] - 5.0) < 0.1
    assert 14 < t[h.argmin()] < 17
    assert h[0] == 0
    late = brain.haemodynamic_response(t, delay=1.0)
    assert abs(t[late.argmax()] - 6.0) < 0.1


def test_the_noise_has_its_correlation_and_variance() -> None:
    x = brain.autoregressive(np.random.default_rng(1), 20000, 8, 0.8)
    assert np.allclose(x.std(axis=0), 1, atol=0.05)
    lagged = [np.corrcoef(x[1:, k], x[:-1, k])[0, 1] for k in range(8)]
    assert np.allclose(lagged, 0.8, atol=0.03)


def test_outside_the_film_only_noise_is_left() -> None:
    film = Film(8, 3)
    silent = brain.neural_state(film_features(film), 0.0, 5.0, np.random.default_rng(1))
    lead = round(brain.LEAD_S * FPS)
    assert not silent[:lead].any()
    assert silent[lead : lead + 64].any()
    assert not silent[lead + 64 :].any()


def test_the_noise_adds_to_the_state_in_proportion() -> None:
    film = Film(8, 3)
    states = [
        brain.neural_state(film_features(film), n, 5.0, np.random.default_rng(1)) for n in (0.0, 1.0, 2.0)
    ]
    assert np.allclose(2 * (states[1] - states[0]), states[2] - states[0], atol=1e-5)


def test_a_subject_is_its_number() -> None:
    again = brain.subject.__wrapped__(1)
    assert np.array_equal(brain.subject(1).weights, again.weights)
    assert not np.array_equal(brain.subject(1).weights, brain.subject(2).weights)
    assert 0.15 < (brain.subject(1).weights != 0).mean() < 0.35


def test_the_response_basis_is_close_to_each_voxels_own() -> None:
    person = brain.subject(1)
    film = Film(40, 3)
    state = brain.neural_state(film_features(film), 0.0, 20.0, np.random.default_rng(1))
    times = np.arange(2.0, 40, 0.8)
    shift = np.zeros(brain.VOXELS)
    fast = brain.bold(person, state, shift, times)
    seconds = np.arange(0, brain.RESPONSE_S, 1 / FPS)
    for v in range(0, brain.VOXELS, 211):
        h = brain.haemodynamic_response(seconds, person.delay[v], person.stretch[v]) / FPS
        slow = np.convolve(state @ person.weights[v], h)[: len(state)]
        exact = np.interp((times + brain.LEAD_S) * FPS, np.arange(len(state)), slow)
        assert np.corrcoef(exact, fast[:, v])[0, 1] > 0.999


def test_the_response_is_causal() -> None:
    person = brain.subject(1)
    film = Film(40, 3)
    state = brain.neural_state(film_features(film), 1.0, 20.0, np.random.default_rng(1))
    changed = state.copy()
    changed[round((brain.LEAD_S + 20) * FPS) :] = 9.0
    times = np.arange(0, 40, 0.8)
    shift = np.zeros(brain.VOXELS)
    a, b = (brain.bold(person, s, shift, times) for s in (state, changed))
    early = times < 19.8
    assert np.allclose(a[early], b[early], atol=1e-4)
    assert np.abs(a - b)[times > 26].max() > 1
