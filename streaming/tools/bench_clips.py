"""Time the clips of a bundle, from a window to its frames, and each call of an engine."""

from collections.abc import Iterable

from rtdecode.bundle import Bundle, golden
from streaming.decode.decoder import Decoder
from streaming.tools.bench_pace import Pace
from streaming.tools.bench_plan import repetitions

Timings = dict[str, list[float]]


def timed(bundle: Bundle, decoder: Decoder, pace: Pace, numbers: Iterable[int]) -> tuple[Timings, Timings]:
    """Time a window to its condition, first frame and whole clip, for each of some numbers of steps.

    Condition, first frame and everything about the engines are taken at the bundle's own number of steps.

    Returns
    -------
    times_ms : dict
        Stage of the runtime -> its times, ms. ``host_overhead`` is what a whole clip takes outside of the
        calls of the engines.
    calls : dict
        Stage of the bundle -> the times of its calls, ms.
    """
    window = golden.window(bundle)
    times_ms: Timings = {"encode": [], "first_frame": [], "host_overhead": []}
    calls: Timings = {stage: [] for stage in decoder.runs_on}
    for steps in numbers:
        name = f"clip_{steps}_step{'s' if steps != 1 else ''}"
        times_ms[name] = []
        for _ in pace.repeat(repetitions(steps, pace.samples), name):
            done = decoder.decode(window, steps or None)
            whole_ms = 1e3 * (done.last_frame_at - done.started_at)
            times_ms[name].append(whole_ms)
            if steps == decoder.steps:
                times_ms["encode"].append(1e3 * (done.encoded_at - done.started_at))
                times_ms["first_frame"].append(1e3 * (done.first_frame_at - done.started_at))
                times_ms["host_overhead"].append(whole_ms - 1e3 * sum(took_s for _, took_s in done.calls))
                for stage, took_s in done.calls:
                    calls[stage].append(1e3 * took_s)
    return times_ms, calls
