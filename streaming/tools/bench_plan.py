"""What of a bundle ``rtdecode bench`` times, how often, and how long that takes on this machine."""

import time

from streaming.decode.decoder import Decoder
from streaming.tools import bench_volumes
from streaming.tools.bench_eeg import CHUNK_S
from streaming.tools.bench_volumes import Case

# Numbers of steps whose clips are timed beside the bundle's own.
STEPS = (1, 2, 4, 8, 50)
# In a quick benchmark, numbers of steps other than the bundle's own whose clip takes longer are left out, s.
QUICK_CLIP_S = 10.0
# Clips of many steps are repeated less often: number of steps -> divisor.
_FEWER = {8: 5, 50: 50}
# For the forecast: how many volumes of each form are tried, one sleep of the probe (s), and a fixed
# time (s) for the minute of EEG that is simulated and cleaned, and for the cold starts.
_TRIED = 3
_PROBE_S = 0.001
_EEG_S = 40.0


def all_steps(decoder: Decoder, *, quick: bool) -> list[int]:
    """List every number of steps to be timed.

    Parameters
    ----------
    decoder : Decoder
        Of the bundle; its cost says how long a clip takes here.
    quick : bool
        Leave out numbers, other than the bundle's own, whose clip takes long.

    Returns
    -------
    list of int
        In rising order; 0 alone stands for a closed form.
    """
    if not decoder.steps:
        return [0]
    numbers = {*STEPS, decoder.steps}
    if decoder.numbers_of_steps is not None:
        numbers &= decoder.numbers_of_steps
    fast = {steps for steps in numbers if clip_s(decoder, steps) <= QUICK_CLIP_S}
    return sorted(fast | {decoder.steps} if quick else numbers)


def repetitions(steps: int, samples: int) -> int:
    """Return how often clips of so many steps are timed where other stages are so many times."""
    return max(3, samples // _FEWER.get(steps, 1))


def clip_s(decoder: Decoder, steps: int) -> float:
    """Forecast how long a clip of so many steps takes here, s."""
    cost = decoder.cost
    return cost.encode_s + steps * cost.step_s + cost.decode_s


def expected_s(case: Case, decoder: Decoder, samples: int) -> float:
    """Estimate how long the benchmark takes here, from the golden window and a few volumes of each form.

    Parameters
    ----------
    case : Case
        The volumes, of which a few are read.
    decoder : Decoder
        Of the bundle.
    samples : int
        Repetitions of each stage.

    Returns
    -------
    float
        s.
    """
    began = time.perf_counter()
    for form in bench_volumes.STAGES.values():
        list(bench_volumes.measure(case, form, range(_TRIED)))
    volume_s = (time.perf_counter() - began) / _TRIED
    clips_s = 0.0
    for steps in all_steps(decoder, quick=False):
        clips_s += repetitions(steps, samples) * clip_s(decoder, steps)
    return samples * (volume_s + _PROBE_S) + clips_s + _EEG_S + samples * CHUNK_S
