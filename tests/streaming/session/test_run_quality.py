"""What is said of a run after its first minute: the rule, and the sentence in a session."""

from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import chi2

from rtdecode.bundle import Bundle
from rtdecode.disk.calibration import QualityFigures
from rtdecode.signal.volume.run_quality import RunQuality
from rtdecode.types import Volume
from rtdecode.windows.assembler import Assembler
from streaming.session.run_quality import FirstMinute, QualityMonitor, sentence, tsnr_interval
from streaming.status import Status
from tests.streaming.bundles import AFFINE, make_bundle, scan
from tests.streaming.sessions import end, stream

STILL = RunQuality(75, 0.05, 0.21, 0.0, 0.0, 0.8, 0.0, 62.0)
CALIBRATION_FIGURES = QualityFigures(0.2, 0.1, 0, 68.0, 80.0, None, 1.0, 0)
TR = 0.8
# Volumes of the first minute, and of a run that is a little longer.
MINUTE = 75
LONGER = 90


# The rule.


def test_a_still_run_looks_usable_with_its_figures() -> None:
    text = sentence(FirstMinute(1, STILL, {"gaps": 0, "artifact_residual_db": 8.24}, CALIBRATION_FIGURES))
    assert text == (
        "run 1 looks usable after 60 s: displacement 0.2 mm at most (0 of 75 volumes above 0.5 mm), 0 DVARS "
        "jumps, tSNR 62 (52 to 72; 68 in the calibration), EEG: 0 gaps, gradient residual 8.2 dB"
    )


@pytest.mark.parametrize(
    ("figures", "complaint"),
    [
        ({"mean_fd_mm": 0.8}, "mean displacement 0.80 mm (at most 0.55 mm)"),
        ({"max_fd_mm": 12.0}, "largest displacement 12.0 mm (at most 10.0 mm)"),
        ({"moved_share": 0.6, "moved": 45}, "60% of the volumes moved by more than 0.5 mm (at most 50%)"),
        ({"jump_share": 0.4, "jumps": 28}, "40% of the volumes jump (DVARS) (at most 30%)"),
        ({"unaligned_share": 0.25}, "25% of the volumes could not be aligned (at most 20%)"),
        ({"tsnr": 18.0}, "tSNR 18 (at least 20)"),
    ],
)
def test_each_bad_figure_says_to_consider_stopping(figures: dict[str, Any], complaint: str) -> None:
    text = sentence(FirstMinute(0, replace(STILL, **figures), {}), 60.0)
    assert text.startswith(f"consider stopping run 0 after 60 s: {complaint}; measured: displacement")


def test_what_is_not_good_and_not_bad_either_is_named() -> None:
    text = sentence(FirstMinute(0, replace(STILL, mean_fd_mm=0.3, tsnr=35.0), {}))
    assert text.startswith("run 0 looks usable")
    assert text.endswith("; not good: mean displacement 0.30 mm (at most 0.25 mm), tSNR 35 (at least 40)")


def test_a_run_that_surely_has_less_than_the_calibration_is_bad() -> None:
    assert "looks usable" in sentence(FirstMinute(0, replace(STILL, tsnr=42.0), {}, CALIBRATION_FIGURES))
    text = sentence(FirstMinute(0, replace(STILL, tsnr=40.5), {}, CALIBRATION_FIGURES))
    assert "tSNR is 60% of the calibration's (at least 70%)" in text
    assert text.startswith("consider stopping")


def test_eeg_that_cannot_be_decoded_or_holds_gradients_is_said() -> None:
    text = sentence(FirstMinute(2, None, {"gaps": 1, "bad_channels": ["Cz", "Oz"], "too_many_bad": True}))
    assert text == (
        "consider stopping run 2 after 60 s: too many channels are bad to be interpolated: Cz, Oz; measured: "
        "EEG: 1 gap"
    )
    text = sentence(FirstMinute(2, None, {"artifact_residual_db": 21.0}))
    assert text.startswith("run 2 looks usable")
    assert text.endswith("not good: gradient residual 21.0 dB (at most 15 dB)")


def test_the_interval_of_tsnr_is_that_of_chi_square_and_holds_the_truth() -> None:
    low, high = tsnr_interval(50.0, 75)
    assert low == pytest.approx(50 * np.sqrt(chi2.ppf(0.025, 73) / 73))
    assert high == pytest.approx(50 * np.sqrt(chi2.ppf(0.975, 73) / 73))
    # Of many voxels with a true ratio of 50, the interval of about 95 % holds it.
    noise = 20 * np.random.default_rng(0).standard_normal((2000, 75))
    ratios = 1000 / noise.std(axis=1, ddof=1)
    covered = [low < 50 < high for low, high in (tsnr_interval(ratio, 76) for ratio in ratios)]
    assert 0.93 < np.mean(covered) < 0.97


# The statuses of a session.


def status(elapsed: float | None, *motions: dict[str, Any] | None, **eeg: Any) -> Status:
    runs = [{"run": number, "motion": motion} for number, motion in enumerate(motions)]
    return Status(elapsed=elapsed, counters={"eeg": eeg, "fmri": {}, "clock": {}, "runs": runs})


def test_each_run_is_told_once_when_its_first_minute_is_measured() -> None:
    advisor = QualityMonitor(None, volumes=True)
    waits = {"volumes": 74, "first_minute": None}
    over = {"volumes": 75, "first_minute": asdict(STILL)}
    assert advisor.take(status(None)) == []
    assert advisor.take(status(61.0, waits)) == []
    assert [text[:5] for text in advisor.take(status(62.0, over))] == ["run 0"]
    assert advisor.take(status(70.0, over, waits)) == []
    assert [text[:5] for text in advisor.take(status(61.0, over, over))] == ["run 1"]
    assert advisor.take(status(90.0, over, over)) == []


def test_volumes_that_stay_away_are_told() -> None:
    advisor = QualityMonitor(None, volumes=True)
    early_counts = {"volumes": 12, "first_minute": None}
    assert advisor.take(status(89.0, early_counts)) == []
    (text,) = advisor.take(status(90.5, early_counts))
    assert text.startswith("consider stopping run 0: only 12 volumes could be read in its first 90 s")
    assert advisor.take(status(99.0, early_counts)) == []


def test_eeg_alone_is_judged_by_the_clock() -> None:
    advisor = QualityMonitor(None, volumes=False, after_s=10.0)
    assert advisor.take(status(9.9, None, samples=9)) == []
    (text,) = advisor.take(status(10.1, None, samples=9, gaps=2, bad_channels=["Cz"]))
    assert text == "run 0 looks usable after 10 s: EEG: 2 gaps; not good: 1 bad channel: Cz"


# The whole way.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(
        tmp_path_factory.mktemp("b") / "bundle", eeg=False, tr=Fraction(4, 5), window=Fraction(8)
    )


def head(index: int, rng: np.random.Generator, moving: bool) -> np.ndarray:
    return np.roll(scan(rng), index % 2 if moving else 0, axis=1)


@pytest.mark.parametrize(("moving", "begins"), [(False, "run 0 looks usable"), (True, "consider stopping")])
def test_an_assembler_on_its_own_clock_measures_what_is_said(
    small: Bundle, moving: bool, begins: str
) -> None:
    rng = np.random.default_rng(0)
    assembler = Assembler(small, None, ("fmri",))
    advisor = QualityMonitor(None, volumes=True)
    texts: list[tuple[int, str]] = []
    for n in range(LONGER):
        arrived_at = 100.0 + TR * (n + 1)
        data = head(n, rng, moving)
        assembler.push(
            Volume(data, AFFINE, n, 1, TR, TR * n, None, arrived_at, arrived_at, arrived_at, uid="run"),
            arrived_at,
        )
        counters = assembler.counters()
        now = Status(elapsed=assembler.elapsed(arrived_at), counters=counters)
        texts += [(n + 1, text) for text in advisor.take(now)]
    ((volumes, text),) = texts
    assert volumes == MINUTE
    assert text.startswith(begins), text
    assert f"of {MINUTE} volumes above 0.5 mm" in text


def test_a_session_says_the_sentence_and_keeps_it(small: Bundle, tmp_path: Path) -> None:
    """The volumes lie in the folder already: the session reads them on the clock of their files."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(LONGER):
        image = nib.Nifti1Image(scan(rng), AFFINE)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = TR
        nib.save(image, folder / f"vol_{n:05d}.nii")
    out = tmp_path / "out"
    flags = ("--bundle", str(small.path), "--out", str(out), "--fmri-dir", str(folder), "--existing", "read")
    ended = end(stream(*flags, "--seconds", "64", "--lost-after", "20"), out)
    assert ended.code == 0, ended.output
    texts = [event["text"] for event in ended.report["told"] if "looks usable" in event["text"]]
    assert len(texts) == 1
    assert texts[0] in ended.output
    assert texts[0].startswith("run 0 looks usable after 60 s: displacement 0.")
    measured = ended.report["runs"][0]["motion"]["first_minute"]
    assert measured["volumes"] == MINUTE
    assert f"({measured['moved']} of {MINUTE} volumes above 0.5 mm)" in texts[0]
