"""The benchmarks of full size count what published networks have, and extend what few layers take."""

import pytest

from benchmarks import full_size_run
from benchmarks.full_scale import computed


def test_a_part_that_grows_with_layers_overtakes_one_that_does_not() -> None:
    peaks = {
        point: {"tracing": 2.0 + 0.5 * point[0] + 0.25 * point[1], "checking": 5.0}
        for point in full_size_run.POINTS
    }
    video, brain = full_size_run.PUBLISHED
    extended = full_size_run.of_all_layers(peaks)
    assert extended == {"tracing": 2 + 0.5 * video + 0.25 * brain, "checking": 5.0}


@pytest.mark.full
def test_what_each_phase_learns_and_takes_is_counted() -> None:
    mindvideo = computed("mindvideo", 267, [1, 8])
    assert {name: phase["learned_millions"] for name, phase in mindvideo["phases"].items()} == {
        # attn1 and attn2 of Stable Diffusion 1.5; with attention over time 143.1 M.
        "frames": 93.5,
        "pretrain": 143.1,
        # The encoder of single volumes, and its decoder.
        "masked": 265.2,
        "align": 254.1,
        "together": 397.2,
    }
    # Twice: other data come first.
    assert mindvideo["phases"]["masked"]["steps"] == 2 * 8600
    hours = {name: phase["hours"] for name, phase in mindvideo["phases"].items()}
    assert hours["together"][1] == pytest.approx(8 * hours["together"][8], rel=0.2)
    brainnetflix = computed("brainnetflix", 267, [1])
    assert brainnetflix["video_billions"] == 1.41
    # A layer of two volumes of 20,000 vertices, the map that it is read by, and a temperature.
    assert brainnetflix["phases"]["align"]["learned_millions"] == 41.7
