"""Simulate where the participant looks: at the middle, or about, with three saccades a second.

`gaze_path` draws fixations. A `Gaze` says which pixel of a film is looked at in each frame, and where the
eyes point at any time, for the potentials that they bring into the EEG. Intervals follow Rayner 1998,
Psychological Bulletin 124:372 (200 to 400 ms between saccades); places lie around the middle of the screen,
as they do for films (Tseng et al. 2009, Journal of Vision 9(7):4). How wide is a choice, not a fit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.film.film import FPS, WIDTH

FIXED = "fixed"
FREE = "free"
GAZES = (FIXED, FREE)

# How wide the film is in the participant's eyes, degrees.
SCREEN_DEG = 18.0
_PIXELS = WIDTH / SCREEN_DEG
# Time between saccades: the mean, the least, and the shape of the gamma distribution of what is above it.
_MEAN_S = 1 / 3
_LEAST_S = 0.1
_SHAPE = 2.0
# Places right of and above the middle: standard deviation, the furthest, and the correlation of neighbours.
_SD_DEG = np.array([4.0, 2.5])
_MOST_DEG = np.array([8.0, 5.0])
_RHO = 0.5
# A saccade lasts so long, and so much longer for each degree (Carpenter 1988, Movements of the Eyes).
_SACCADE_S = 0.021
_PER_DEGREE_S = 0.0022


@dataclass(frozen=True, slots=True)
class Gaze:
    """Where the eyes point.

    Attributes
    ----------
    onsets : (fixation,)
        Starts of the saccades that lead to each place, s of film time.
    places : (fixation, 2)
        Degrees right of and above the middle of the screen.
    """

    onsets: NDArray[np.float64]
    places: NDArray[np.float64]

    def directions(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where the eyes point at given times, (time, 2), degrees."""
        before = np.concatenate([self.places[:1], self.places[:-1]])
        size = np.linalg.norm(self.places - before, axis=1)
        arrived = self.onsets + _SACCADE_S + _PER_DEGREE_S * size
        # Each saccade goes from one place to the next at one speed.
        knots = np.stack([self.onsets, arrived], axis=1).ravel()
        places = np.stack([before, self.places], axis=1).reshape(-1, 2)
        return np.stack([np.interp(times, knots, place) for place in places.T], axis=1)

    def pixels(self, count: int) -> NDArray[np.int64]:
        """Return what is looked at in the middle of each frame, (frame, 2).

        Rows below and columns right of the film's middle, as
        `rtdecode.phantom.film.features.film_features` takes them.
        """
        right, above = self.directions((np.arange(count) + 0.5) / FPS).T
        return np.rint(np.stack([-above, right], axis=1) * _PIXELS).astype(np.int64)

    def saccades(self, count: int) -> NDArray[np.int64]:
        """Return the frames of a film in which a new place is first looked at, (saccade,)."""
        frames = np.ceil(self.onsets * FPS).astype(np.int64)
        return np.unique(frames[(frames >= 0) & (frames < count)])


def gaze_path(start_s: float, stop_s: float, seed: int) -> Gaze:
    """Draw where somebody looks who looks about.

    Parameters
    ----------
    start_s, stop_s : float
        Span of film time.
    seed : int
        Seed of the saccades.
    """
    waits = np.random.default_rng((seed, 53))
    steps = np.random.default_rng((seed, 54))
    scale = (_MEAN_S - _LEAST_S) / _SHAPE
    onsets = [start_s]
    places = [np.zeros(2)]
    while onsets[-1] < stop_s:
        onsets.append(onsets[-1] + _LEAST_S + waits.gamma(_SHAPE, scale))
        step = _SD_DEG * np.sqrt(1 - _RHO**2) * steps.standard_normal(2)
        places.append(np.clip(_RHO * places[-1] + step, -_MOST_DEG, _MOST_DEG))
    return Gaze(np.array(onsets), np.array(places))
