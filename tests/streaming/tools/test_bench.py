import json
import math
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from rtdecode.bundle import Bundle
from streaming.decode.deadline import Cost
from streaming.decode.decoder import Decoder
from streaming.tools import bench, bench_clips, bench_plan, bench_volumes
from streaming.tools.bench_pace import Pace
from tests.streaming.bundles import make_bundle

# What the contract of `rtdecode bench --json` names, of a bundle that denoises.
STAGES = {
    "volume_to_vector", "volume_to_vector_enhanced", "volume_to_vector_nifti", "volume_to_vector_slices",
    "parse_mosaic", "eeg_push", "encode", "first_frame", "clip_0_steps", "clip_1_step", "clip_2_steps",
    "clip_4_steps", "clip_8_steps", "clip_50_steps", "host_overhead", "cold_start",
}  # fmt: skip


def clips(bundle: Bundle, samples: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    decoder = Decoder(bundle)
    return bench_clips.timed(bundle, decoder, Pace(samples), bench_plan.all_steps(decoder, quick=False))


def test_every_number_of_steps_is_timed(tmp_path: Path) -> None:
    durations_s, calls = clips(make_bundle(tmp_path / "bundle", steps=3), 10)
    steps = {"clip_1_step": 10, "clip_2_steps": 10, "clip_3_steps": 10, "clip_4_steps": 10}
    steps |= {"clip_8_steps": 3, "clip_50_steps": 3}
    assert {name: len(times) for name, times in durations_s.items() if name.startswith("clip")} == steps
    assert len(durations_s["encode"]) == len(durations_s["first_frame"]) == 10
    assert max(durations_s["first_frame"]) <= max(durations_s["clip_3_steps"])
    assert min(durations_s["clip_50_steps"]) > min(durations_s["clip_1_step"])
    # At the bundle's own three steps. A clip has nine latent frames.
    assert {stage: len(times) for stage, times in calls.items()} == {
        "encode": 10,
        "denoise": 30,
        "decode_first": 10,
        "decode_next": 80,
    }
    engines_s = sum(sum(times) for times in calls.values())
    assert engines_s + sum(durations_s["host_overhead"]) == pytest.approx(sum(durations_s["clip_3_steps"]))
    assert all(
        0 < outside < clip_s
        for outside, clip_s in zip(durations_s["host_overhead"], durations_s["clip_3_steps"], strict=True)
    )


def test_a_closed_form_bundle_takes_no_step(tmp_path: Path) -> None:
    durations_s, calls = clips(make_bundle(tmp_path / "bundle"), 5)
    assert set(durations_s) == {"encode", "first_frame", "host_overhead", "clip_0_steps"}
    assert "denoise" not in calls
    assert len(durations_s["encode"]) == 5


@pytest.mark.parametrize(
    ("spent_ms", "fast", "largest", "advice"),
    [
        ({1: 100, 2: 150, 4: 200, 8: 700}, True, 4, "Of 1, 2, 4, 8 steps, 1, 2, 4 fit."),
        ({1: 400, 2: 600, 4: 700}, False, 1, "Of 1, 2, 4 steps, 1 fit: give --steps."),
        ({1: 600, 4: 900}, False, None, "No number of steps fits."),
    ],
)
def test_the_machine_is_fast_enough_if_preview_and_final_fit_into_a_hop(
    tmp_path: Path, spent_ms: dict[int, float], fast: bool, largest: int | None, advice: str
) -> None:
    manifest = make_bundle(tmp_path / "bundle", steps=4).manifest
    hop_ms = 1e3 * float(manifest.grid.hop)
    clips = {f"clip_{n}_steps": [ms * hop_ms / 1000.0] for n, ms in spent_ms.items()}
    verdict = bench.fits(manifest, 4, clips)
    assert (verdict["fast_enough"], verdict["clips_per_hop"], verdict["most_steps"]) == (fast, 2, largest)
    assert advice in verdict["sentence"]
    assert ("is fast enough for" in verdict["sentence"]) is fast
    alone = bench.fits(replace(manifest, eeg=None), 4, clips)
    assert alone["clips_per_hop"] == 1


def test_a_stage_ends_when_its_time_is_up_but_not_before_its_least() -> None:
    assert list(Pace(40, math.inf).repeat(5, "stage")) == [0, 1, 2, 3, 4]
    assert list(Pace(40, -1.0).repeat(5, "stage")) == [0]
    assert list(Pace(40, -1.0).repeat(5, "stage", 2)) == [0, 1]


def test_the_forecast_grows_with_the_samples(tmp_path: Path) -> None:
    read = make_bundle(tmp_path / "bundle")
    volume_case = bench_volumes.case(read, (64, 64, 36), 200)
    decoder = Decoder(read)
    short_s, long_s = (bench_plan.expected_s(volume_case, decoder, samples) for samples in (10, 100_000))
    assert 40 < short_s < long_s / 10


def test_a_quick_benchmark_leaves_out_steps_that_take_long(tmp_path: Path) -> None:
    decoder = Decoder(make_bundle(tmp_path / "bundle", steps=8))
    decoder.cost = Cost(encode_s=0.5, step_s=2.0, decode_s=1.0)
    assert bench_plan.all_steps(decoder, quick=False) == [1, 2, 4, 8, 50]
    # A clip of 4 steps takes 9.5 s. The bundle's own number is always timed.
    assert bench_plan.all_steps(decoder, quick=True) == [1, 2, 4, 8]


@pytest.mark.full
@pytest.mark.timed
def test_a_quick_benchmark_has_the_stages_of_a_whole_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[weakref.ref[Decoder]] = []
    cold_start = bench._cold_start

    def watched(bundle: Bundle) -> Decoder:
        decoder = Decoder(bundle)
        opened.append(weakref.ref(decoder))
        return decoder

    def alone(path: Path, pace: Pace) -> list[float]:
        assert [decoder() for decoder in opened] == [None], "the graphs would be held twice"
        return cold_start(path, pace)

    monkeypatch.setattr(bench, "Decoder", watched)
    monkeypatch.setattr(bench, "_cold_start", alone)
    bench.run(str(make_bundle(tmp_path / "bundle", steps=4).path), as_json=True, quick=True)
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["quick"] is True
    assert report["stages"].keys() == STAGES
    assert report["stages"].pop("clip_0_steps") is None
    counts = {name: stage["n"] for name, stage in report["stages"].items()}
    assert counts.pop("eeg_push") == 100
    assert all(1 <= n <= 40 for n in counts.values())
    assert report["engines"].keys() == {"encode", "denoise", "decode_first", "decode_next"}
    assert all(engine["runs_on"].endswith("on the CPU") for engine in report["engines"].values())
    assert report["fallbacks"] == []
    assert report["state_mb"] > 0
    assert report["fits"]["clip_ms"].keys() == {"1", "2", "4", "8", "50"}
    assert "at most a minute" in printed.err


@pytest.mark.parametrize("form", ["mosaic", "enhanced", "nifti", "slices"])
def test_every_form_of_file_is_timed_from_the_folder_to_the_vector(tmp_path: Path, form: str) -> None:
    volume_case = bench_volumes.case(make_bundle(tmp_path / "bundle"), (64, 64, 36), 200)
    rows = list(bench_volumes.measure(volume_case, form, range(3), other_files=5))
    assert len(rows) == 3
    for wall, cpu, parse in rows:
        assert 0 < parse < wall
        assert 0 < cpu < wall
