"""Published figures beside their floors, by networks whose right answers are known."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.clip_file import ClipFile, Pixels
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.metrics import tiny_networks
from tests.train.tiny import tiny
from train.evaluate import evaluate, read_request
from train.evaluation.any_film import next_sessions
from train.evaluation.beside import CONSTANT, DECODER, NULL
from train.evaluation.film_figures import figures
from train.evaluation.film_scores import FilmWindows, Looks, Scores
from train.evaluation.image_similarity import likenesses
from train.evaluation.page import floors
from train.evaluation.published import CHANCE, Published, load
from train.evaluation.result import Request
from train.evaluation.section import Decoded, HeldOutWindows
from train.evaluation.sections.published import Tally
from train.metrics.networks import Network

CLASSES = 64


def colours(clip: Pixels) -> np.ndarray:
    """Colours of 3 x 3 parts of each frame: features that tell most frames apart."""
    frames = np.asarray(clip, np.float32)[:, :63]
    parts = frames.reshape(len(frames), 3, 21, 3, 32, 3).mean(axis=(2, 4))
    return (parts.reshape(len(frames), -1) - 110) / 50


def classes(values: np.ndarray) -> np.ndarray:
    """A fixed linear classifier of such features."""
    return values @ np.random.default_rng(0).normal(size=(27, CLASSES)).astype(np.float32)


def network(read: object, count: int | None = None) -> Network:
    return Network("Colours", "0" * 12, None, count, read)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def papers() -> Published:
    return Published(
        image=network(lambda clip: classes(colours(clip)), CLASSES),
        video=network(lambda clip: classes(colours(clip).mean(axis=0)), CLASSES),
        clip=network(colours),
        dino=network(colours),
        detector=lambda clips: np.stack([colours(clip).mean(axis=0) for clip in clips]).astype(np.float64),
    )


@pytest.fixture(scope="module")
def film_windows() -> FilmWindows:
    """A film of 60 windows: coloured parts that drift, each window by another hand."""
    return film(60, 8)


def film(windows: int, frames: int, first: int = 0) -> FilmWindows:
    clips: list[Pixels] = []
    for seed in range(first, first + windows):
        rng = np.random.default_rng(seed)
        ends = rng.integers(30, 220, (2, 3, 3, 3))
        between = np.linspace(0, 1, frames)[:, None, None, None]
        parts = (1 - between) * ends[0] + between * ends[1]
        clips.append(np.kron(parts, np.ones((1, 21, 32, 1))).astype(np.uint8))
    none = np.zeros((windows, 0))
    return FilmWindows(
        clips=clips,
        where=[(0, 4.0 * k, 4.0 * k + 4) for k in range(windows)],
        cuts=[],
        allowed=~np.eye(windows, dtype=bool),
        near=0,
        pairs=[],
        within=np.zeros(windows, np.int64),
        looks=Looks(none, none, none),
        through_codec=None,
    )


def held_out_windows(number: int, film_windows: FilmWindows) -> HeldOutWindows:
    return HeldOutWindows(number, {}, film_windows.where, film_windows)


def scores(
    papers: Published, film_windows: FilmWindows, clips: Sequence[Pixels]
) -> tuple[Tally, dict[str, list[Scores]]]:
    mean = np.mean(film_windows.clips, axis=0).astype(np.uint8)
    tally = Tally(papers, mean, film(15, 9).clips)
    held_out = held_out_windows(0, film_windows)
    tally.film(held_out)
    same = Decoded([mean] * len(clips))
    by_suffix = {
        DECODER: [tally.score(DECODER, Decoded(clips), held_out)],
        NULL: [tally.score(NULL, same, held_out)],
        CONSTANT: [tally.score(CONSTANT, same, held_out)],
    }
    return tally, by_suffix | tally.references()


def test_the_truth_scores_all_and_the_floors_little(papers: Published, film_windows: FilmWindows) -> None:
    tally, by_suffix = scores(papers, film_windows, film_windows.clips)
    assert not tally.wants("_rest")
    report = figures(by_suffix, [film_windows], CHANCE, fixed=False)
    report |= tally.figures(np.arange(len(film_windows.clips)) // 8)
    for name, figure in report.items():
        assert {"value", "chance", "shuffled", "constant", "ci95", "interval", "n"} == figure.keys() - {
            "reason"
        }, name
    for rule in ("papers", "strict"):
        for kind in ("image", "video"):
            assert report[f"classification_50way_{kind}_{rule}"]["value"] == pytest.approx(1)
            assert report[f"classification_50way_{kind}_{rule}"]["constant"] < 0.6
    assert report["classification_2way_video_papers"]["chance"] == pytest.approx(0.75)
    assert report["retrieval_top1_of_50"]["value"] > 0.9
    # A clip that is always the same is level with itself wherever a film looks for its clip.
    assert report["retrieval_top1_of_50_by_film"]["constant"] == 0
    # There are fewer windows than that.
    assert report["retrieval_top1_of_300"]["value"] is None
    assert report["clip_consistency_pairs_difference"]["value"] == pytest.approx(0, abs=1e-9)
    assert report["clip_consistency_pairs"]["value"] == pytest.approx(
        report["clip_consistency_pairs_film"]["value"]
    )
    # Who stands still is too consistent, and the difference tells.
    assert report["dino_consistency"]["constant"] > report["dino_consistency"]["value"]
    assert report["dino_consistency_difference"]["constant"] > 0.01
    assert report["fvd"]["value"] == pytest.approx(0, abs=1e-9)
    assert report["fvd"]["n"] == len(film_windows.clips)
    assert report["fvd_null"]["value"] == pytest.approx(report["fvd"]["constant"])
    assert report["fvd"]["constant"] > report["fvd_film_halves"]["value"] > 0
    assert report["fvd_training_clips"]["n"] == 15


def test_every_figure_stands_beside_its_floors(papers: Published, film_windows: FilmWindows) -> None:
    _, by_suffix = scores(papers, film_windows, film_windows.clips[::-1])
    report = figures(by_suffix, [film_windows], CHANCE, fixed=False)
    rows = {row["figure"]: row for row in floors(report)}
    row = rows["classification_50way_image_strict"]
    assert row["marginal"] > row["chance"]
    assert row["null brain"] == pytest.approx(row["constant"])
    assert rows["clip_consistency_pairs"]["the film itself"] is not None
    # One row for each metric; what stands beside it has none.
    assert "classification_50way_image_strict_marginal" in report
    assert not {"classification_50way_image_strict_marginal", "clip_consistency_pairs_film"} & rows.keys()


def test_clips_of_other_windows_score_what_the_marginal_allows(
    papers: Published, film_windows: FilmWindows
) -> None:
    order = np.random.default_rng(1).permutation(len(film_windows.clips))
    _, by_suffix = scores(papers, film_windows, [film_windows.clips[n] for n in order])
    report = figures(by_suffix, [film_windows], CHANCE, fixed=False)
    low, high = report["retrieval_rank"]["ci95"]
    assert low <= 0.5 <= high
    for kind in ("image", "video"):
        for rule in ("papers", "strict"):
            name = f"classification_2way_{kind}_{rule}"
            assert report[name]["ci95"][0] <= report[f"{name}_marginal"]["value"] + 1e-9


def test_the_brain_of_another_film_is_held_against_this_one(papers: Published) -> None:
    tally = Tally(papers, film(1, 4).clips[0], [])
    sessions = [held_out_windows(number, film(12, 4, 100 * number)) for number in range(5)]
    decodes = [Decoded(held_out.truth.clips) for held_out in sessions]
    for held_out, decoded in zip(sessions, decodes, strict=True):
        tally.film(held_out)
        assert tally.score(DECODER, decoded, held_out)["retrieval_rank"][0].mean() > 0.95
    stand_ins = [
        tally.stand_in("_other_film", decodes[session].stands_in(session, steps), held_out)
        for held_out in sessions
        for session, steps in next_sessions(held_out.number, [12] * 5)
    ]
    ranks = np.concatenate([stand_in["retrieval_rank"][0] for stand_in in stand_ins])
    assert 0.4 < ranks.mean() < 0.6


def test_clips_of_other_times_are_read_from_what_was_seen_of_them(
    papers: Published, film_windows: FilmWindows
) -> None:
    tally, by_suffix = scores(papers, film_windows, film_windows.clips)
    held_out = held_out_windows(0, film_windows)
    shifted = Decoded(film_windows.clips).stands_in(0, 7)
    np.testing.assert_array_equal(shifted.clips[0], film_windows.clips[7])
    moved = tally.stand_in("_shifted", shifted, held_out)
    again, _ = scores(papers, film_windows, shifted.clips)
    for metric, (values, _) in again.score(DECODER, Decoded(shifted.clips), held_out).items():
        np.testing.assert_allclose(moved[metric][0], values)
    assert moved["retrieval_rank"][0].mean() < by_suffix[DECODER][0]["retrieval_rank"][0].mean()


def test_pictures_alone_need_no_network() -> None:
    short = film(2, 3)
    tally = Tally(Published(pictures=True), short.clips[0], [])
    held_out = held_out_windows(0, short)
    tally.film(held_out)
    assert tally.score(DECODER, Decoded(short.clips), held_out) == {}
    tally.score(NULL, Decoded(short.clips[::-1]), held_out)
    by_suffix = tally.close(held_out, {})
    assert {*by_suffix} == {"", "_null", "_frozen", CONSTANT}
    for suffix in ("", "_null", CONSTANT):
        assert {*by_suffix[suffix]} == {"ssim_mv", "ssim_nc", "ssim_ref", "psnr_frames", "end_point_error"}
    assert {*by_suffix[""]} <= CHANCE.keys()
    value = {
        suffix: {name: score for name, (score, _) in scores.items()} for suffix, scores in by_suffix.items()
    }
    assert value[""]["psnr_frames"].tolist() == [100.0] * 2
    assert value[""]["end_point_error"].tolist() == [0.0] * 2
    # The constant is the first window.
    assert value[CONSTANT]["psnr_frames"][0] == 100.0 > value[CONSTANT]["psnr_frames"][1]
    np.testing.assert_array_equal(value[CONSTANT]["ssim_mv"][1], value["_null"]["ssim_mv"][1])
    np.testing.assert_array_equal(value[CONSTANT]["end_point_error"][1], value["_null"]["end_point_error"][1])
    assert (value["_frozen"]["end_point_error"] > 0).all()
    assert tally.figures(np.arange(2)) == {}


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    with refused(
        UsageError,
        "metric-network-missing-files",
        key="clip",
        folder=tmp_path / "missing",
        missing_files=re.compile("'config.json'"),
    ):
        load(Request(film="shapes", clip=tmp_path / "missing"))
    with refused(UsageError, "evaluate-key-unread", unread=["published", "dino"]):
        Request(published=True, dino=tmp_path).check_read(where="nothing is judged")
    Request().check_read(where="nothing is judged")
    with refused(UsageError, "evaluate-not-boolean", key="published", found="all"):
        read_request(["published=all"])
    read = read_request(["published=true", "fvd=detector.pt"])
    assert read.published is True
    assert read.fvd == Path("detector.pt")
    assert not load(Request())


@pytest.mark.full
def test_a_run_is_judged_by_networks_from_folders(tmp_path: Path) -> None:
    request = Request(
        film="shapes",
        seeds="1000",
        seconds=24,
        oracle=None,
        image_classifier=tiny_networks.image_classifier(tmp_path / "vit"),
        video_classifier=tiny_networks.video_classifier(tmp_path / "videomae"),
        clip=tiny_networks.clip(tmp_path / "clip"),
        dino=tiny_networks.dino(tmp_path / "dino"),
        fvd=tiny_networks.detector(tmp_path / "i3d.pt"),
    )
    # What cannot be loaded is refused before anything is judged.
    with refused(UsageError, "fvd-detector-missing", path=tmp_path / "missing.pt"):
        evaluate(tiny("ridge"), replace(request, fvd=tmp_path / "missing.pt"))
    with refused(UsageError, "evaluate-key-unread"):
        evaluate(tiny("ridge"), replace(request, film=None))
    report = evaluate(tiny("ridge"), request)
    for name in (
        "classification_2way_image_papers",
        "classification_50way_video_strict",
        "clip_consistency_steps",
        "dino_consistency_difference",
        "retrieval_rank_by_film",
        "fvd",
    ):
        for suffix in ("", "_null", "_nearest", "_other_film"):
            assert f"{name}{suffix}" in report, f"{name}{suffix}"
        assert report[name]["n"] == 6
    assert "classification_2way_image_papers_marginal" in report
    assert "classification_2way_image_papers_rest" not in report


def test_clips_in_files_are_the_same_pictures() -> None:
    pixels = [np.asarray(clip)[:4] for clip in film(2, 3).clips]
    file = ClipFile()
    stored = [file.add(clip) for clip in pixels]
    in_memory = {"": pixels[::-1], "_null": [clip[::-1] for clip in pixels]}
    on_disk = {"": stored[::-1], "_null": [clip[::-1] for clip in stored]}
    constant = (CONSTANT, pixels[0])
    assert likenesses(on_disk, stored, constant) == likenesses(in_memory, pixels, constant)
