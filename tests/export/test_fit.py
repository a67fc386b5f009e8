"""A bundle is adapted to another participant in closed form, and its generator stays as it was."""

import contextlib
import io
import json
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console

from export import chance
from export import fit as command
from export.fitted import compare, write
from export.lags import draw, implausible, lag_curve, plot
from rtdecode import bundle as bundles
from rtdecode import cli
from rtdecode.bundle import Bundle
from rtdecode.bundle.graph import Graph
from rtdecode.disk.hashed_folder import file_hash
from rtdecode.disk.recording import Recording
from rtdecode.errors import BundleError, RtDecodeError, UsageError
from rtdecode.phantom.body.scanner import head
from rtdecode.phantom.session import PhantomSession
from streaming.decode.decoder import Decoder
from streaming.session import replay
from tests.export.test_engines import built_for, with_engines
from tests.recordings import record
from tests.refusals import refused
from tests.streaming.bundles import BRAIN
from train.data.films import read_film
from train.data.recorded import Recorded, read_recordings
from train.fitting import participant
from train.fitting.compact import CompactFitter, compact_fitter
from train.fitting.encoder_graph import replaced, weights_of
from train.fitting.fitter import Screenings, identified
from train.fitting.participant import EncoderFit, FilmStory, join, never_worse

SUBJECT = 2
SECONDS = 256
LAGS = np.arange(0, 8.1, 0.8)


@dataclass(frozen=True)
class Setup:
    """A participant's recording with what a fit makes of it on the way."""

    base: Bundle
    folder: Path
    recorded: Recorded
    story: FilmStory
    fitter: CompactFitter

    @property
    def model(self) -> onnx.ModelProto:
        return self.fitter.encoder

    def fit(self, recorded: Recorded | None = None, story: FilmStory | None = None) -> EncoderFit:
        inputs = recorded or self.recorded, story or self.story, self.fitter.sizes
        fitted = participant.fit(*inputs, self.fitter.refined)
        shapes = {name: value.shape for name, value in self.fitter.weights.items()}
        return participant.completed(fitted, shapes)

    def identify(self, points: np.ndarray, story: FilmStory | None = None) -> float:
        return float(identified(points, self.recorded, story or self.story).mean())


def screened(folder: Path, base: Bundle) -> Screenings:
    """The film of a recording, as its truth has it."""
    film = folder / "truth" / "film.mp4"
    frames = read_film(film, base.manifest.clip)
    return Screenings([frames], [film.name], [file_hash(film)[:16]], [folder / "truth" / "events.tsv"])


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    root = tmp_path_factory.mktemp("fit")
    base = bundles.load("phantom")
    folder = record(PhantomSession("easy", SUBJECT, 5, SECONDS, sfreq=250), root / "session")
    fitter = compact_fitter(base)
    recording = Recording(folder)
    screenings = screened(folder, base)
    recorded = read_recordings([recording], [float(SECONDS)], screenings.names, base.manifest)
    story = fitter.story(recorded, screenings)
    return Setup(base, folder, recorded, story, fitter)


@pytest.fixture(scope="module")
def fitted(setup: Setup) -> EncoderFit:
    return setup.fit()


@pytest.fixture(scope="module")
def fitted_bundle(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, str]:
    """The bundle that the command writes, and what it prints."""
    out = tmp_path_factory.mktemp("made") / "mine"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        command.run([setup.folder], None, None, str(setup.base.path), out)
    return bundles.load(out), printed.getvalue()


@pytest.mark.full
def test_the_command_writes_a_bundle_that_runs(setup, fitted_bundle):
    mine, printed = fitted_bundle
    assert "64 windows" in printed
    assert "warning" not in printed
    assert mine.path.with_name("mine.lag.png").stat().st_size > 1000
    manifest = mine.manifest
    assert manifest.confidence is None
    assert manifest.noise_key == setup.base.manifest.noise_key
    assert manifest.simulated
    assert manifest.provenance["participant"] == "simulated, preset easy, subject 2"
    about = manifest.provenance["fitted"]
    assert (about["from"], about["minutes"], about["windows"]) == (setup.base.digest, 4.27, 64)
    assert about["recordings"] == [Recording(setup.folder).digest()]
    assert about["films"] == [file_hash(setup.folder / "truth" / "film.mp4")[:16]]
    assert setup.folder.name not in json.dumps(about)
    assert 4 <= about["lag"]["best_s"] <= 6.4
    assert about["lag"]["doubt"] is None
    assert manifest.fmri is not None
    np.testing.assert_allclose(manifest.fmri.affine, head(SUBJECT).affine)
    assert manifest.parity["largest_difference"]["condition"] < 1e-4
    for name in ("denoise.onnx", "decode_first.onnx", "decode_next.onnx"):
        assert manifest.files[name] == setup.base.manifest.files[name]
    held_out = about["held_out"]
    assert held_out["both"]["value"] > held_out["both"]["shifted"] + 0.1
    assert held_out["both"]["value"] >= max(held_out["fmri"]["value"], held_out["eeg"]["value"])
    low, high = held_out["both"]["ci95"]
    assert 0.5 < low < held_out["both"]["value"] < high
    assert 0.5 < about["drawable"] < 1
    assert f"it can be told {about['drawable']:.0%} of what differs" in " ".join(printed.split())
    assert Decoder(mine).steps == manifest.steps, "the golden windows agree"


def quickly(setup: Setup, base: Bundle, fitted: EncoderFit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command fit a bundle that may be in memory alone, and take its windows and fit as they are."""
    monkeypatch.setattr(bundles, "load", lambda name: base)
    monkeypatch.setattr(command, "fitter_of", lambda base: setup.fitter)
    monkeypatch.setattr(command, "read_recordings", lambda *arguments: setup.recorded)
    monkeypatch.setattr(participant, "fit", lambda *arguments: fitted)
    monkeypatch.setattr(command.lags, "sweep", lambda *arguments: None)


@pytest.mark.full
def test_a_bundle_names_no_recording_and_not_whom_it_was_fitted_to_before(
    setup, fitted, tmp_path, monkeypatch
):
    folder = shutil.copytree(setup.folder, tmp_path / "DOE_JANE")
    file = folder / "recording.json"
    tree = json.loads(file.read_text())
    tree["meta"]["simulated"] = False
    file.write_text(json.dumps(tree))
    film = shutil.copyfile(folder / "truth" / "film.mp4", tmp_path / "for_DOE_JANE.mp4")
    fitted_before = {"fitted": {"recordings": ["DOE_JOHN"]}, "decoder": setup.base.manifest.provenance}
    base = replace(setup.base, manifest=replace(setup.base.manifest, provenance=fitted_before, brain=BRAIN))
    quickly(setup, base, fitted, monkeypatch)
    written = []
    monkeypatch.setattr(command, "write", lambda *arguments: written.append(arguments))
    command.run([folder], film, None, "phantom", tmp_path / "mine")
    ((_, _, _, _, changes, _, _),) = written
    assert replace(base.manifest, **changes).brain is None, "its evidence was fitted on another's windows"
    provenance = changes["provenance"]
    assert provenance["participant"] == f"recorded, {Recording(folder).digest()}"
    assert provenance["decoder"] == setup.base.manifest.provenance
    assert provenance["fitted"]["films"] == [file_hash(film)[:16]]
    assert "DOE" not in json.dumps(provenance)


@pytest.mark.full
def test_fitting_again_gives_the_same_weights(setup, fitted_bundle, fitted):
    weights = weights_of(onnx.load(fitted_bundle[0].path / "encode.onnx"), fitted_bundle[0].path, ("varied",))
    assert set(fitted.weights) - set(weights) == {"yields"}
    for name in set(fitted.weights) & set(weights):
        value = fitted.weights[name]
        np.testing.assert_allclose(weights[name], value, rtol=2e-3, atol=1e-6)


def test_held_out_windows_are_identified(setup, fitted):
    scores = {route: setup.identify(points) for route, points in fitted.held_out.items()}
    assert set(scores) == {"both", "fmri", "eeg"}
    assert scores["both"] > 0.75
    assert scores["fmri"] > 0.7
    assert scores["eeg"] > 0.55


@pytest.mark.full
def test_a_film_that_was_not_shown_tells_little(setup):
    other = setup.story.shifted(0.5)
    encoder_fit = setup.fit(story=other)
    for points in encoder_fit.held_out.values():
        assert 0.35 < setup.identify(points, other) < 0.66
    assert implausible(LAGS, lag_curve(setup.recorded, other, LAGS)) is not None


@pytest.mark.full
def test_a_film_that_does_not_belong_to_the_recording_gives_no_bundle(setup, tmp_path):
    """The recording as it is, with the truth of another session."""
    truth = tmp_path / "truth"
    PhantomSession("easy", SUBJECT, seed=6, seconds=SECONDS).truth(truth)
    out = tmp_path / "made" / "mine"
    with refused(RtDecodeError, "fit-not-above-chance") as caught:
        command.run([setup.folder], truth / "film.mp4", truth / "events.tsv", str(setup.base.path), out)
    assert caught.value.exit_code == 1
    assert not out.parent.exists()


def noisy(setup: Setup) -> Recorded:
    """The recording with EEG in which nothing is to be found."""
    eeg = setup.recorded.eeg
    assert eeg is not None
    noise = np.random.default_rng(3).normal(size=eeg.data.shape).astype(np.float32)
    return replace(setup.recorded, eeg=replace(eeg, data=noise))


@pytest.mark.parametrize(
    ("low", "shifted", "shifted_99", "proven"),
    [
        (0.49, 0.5, 0.6, False),
        (0.52, 0.5, 0.6, True),
        (0.52, 0.56, 0.6, False),
        (0.6, 0.56, 0.64, True),
        (0.6, 0.5, 0.66, False),
    ],
)
def test_chance_is_a_half_and_what_shifted_films_give(low, shifted, shifted_99, proven):
    nulls = {"shifted": shifted, "shifted_99": shifted_99}
    figure = {"value": 0.65, "ci95": [low, 0.7], "chance": 0.5, "n": 60} | nulls
    if proven:
        chance.check({"fmri": figure})
    else:
        with refused(
            RtDecodeError, "fit-not-above-chance", accuracy=0.65, null_mean=shifted, modalities="fMRI"
        ):
            chance.check({"fmri": figure})


def test_luck_is_what_one_more_shifted_film_stays_below():
    rng = np.random.default_rng(0)
    count = len(chance.SHIFTS) + 1
    accuracies = rng.normal(0.5, 0.05, (20_000, count))
    limits = [chance.by_luck(list(row[:-1]))["shifted_99"] for row in accuracies]
    assert 0.987 < np.mean(accuracies[:, -1] < limits) < 0.993


def test_fusion_that_gains_is_kept(setup, fitted):
    gains = replace(fitted, held_out=fitted.held_out | {"both": setup.story.targets})
    chosen = never_worse(gains, setup.recorded, setup.story)
    assert chosen is gains
    assert not chosen.weights["yields"].any()


def test_where_fusion_hurts_the_new_bundle_reads_the_better_modality_alone(setup, fitted, tmp_path):
    alone = {route: setup.identify(fitted.held_out[route]) for route in ("fmri", "eeg")}
    better, other = sorted(alone, key=lambda route: -alone[route])
    worse = replace(fitted, held_out=fitted.held_out | {"both": fitted.held_out["both"][::-1]})
    chosen = never_worse(worse, setup.recorded, setup.story)
    assert chosen.alone == better
    assert chosen.weights["yields"].tolist() == [float(name == other) for name in ("fmri", "eeg")]
    np.testing.assert_array_equal(chosen.held_out["both"], fitted.held_out[better])
    assert chosen.fused is worse.held_out["both"]
    bundle = write(setup.base, setup.fitter, chosen, setup.recorded, {}, tmp_path / "one")
    golden = {name: value[:1].astype(np.float32) for name, value in bundle.golden().items()}
    assert golden["eeg_mask"].any()
    assert golden["fmri_mask"].any()
    encode = Graph(bundle.read("encode.onnx"), "encode.onnx")
    window = {name: golden[name] for name in encode.inputs}
    without = window | {name: np.zeros_like(window[name]) for name in (other, f"{other}_mask")}
    np.testing.assert_array_equal(encode(window)["condition"], encode(without)["condition"])
    # Alone the other one counts: a preview is not the picture of nobody.
    blank = {name: np.zeros_like(value) for name, value in window.items()}
    lone = blank | {name: window[name] for name in (other, f"{other}_mask")}
    assert np.abs(encode(lone)["condition"] - encode(blank)["condition"]).max() > 0.01


def test_a_fit_leaves_out_the_engines_of_the_graphs_that_it_replaces(setup, fitted, tmp_path):
    copy = bundles.load(shutil.copytree(setup.base.path, tmp_path / "base"))
    copy = with_engines(copy, built_for(copy, "encode"), built_for(copy, "decode_first"))
    base = replace(copy, manifest=replace(copy.manifest, gpu="some GPU"))
    bundle = write(base, setup.fitter, fitted, setup.recorded, {}, tmp_path / "fitted")
    replaced_engine, other_engine = base.manifest.engines
    assert bundle.manifest.engines == [other_engine]
    assert replaced_engine.file not in bundle.manifest.files
    assert (bundle.path / other_engine.file).read_bytes() == (base.path / other_engine.file).read_bytes()
    assert bundle.manifest.gpu is None


@pytest.mark.full
def test_a_modality_at_chance_is_named(setup, capsys):
    recorded = noisy(setup)
    chosen = never_worse(setup.fit(recorded), recorded, setup.story)
    figures = chance.report(Console(), recorded, setup.story, setup.fitter, chosen)
    assert figures["eeg"]["ci95"][0] < 0.5
    assert figures["both"]["value"] >= figures["fmri"]["value"] > 0.6
    chance.say_routes(Console(width=300), figures, recorded, setup.base.manifest)
    assert "warning: EEG alone does not differ from chance" in capsys.readouterr().out


def test_what_a_bundle_can_draw_of_a_film_is_told(setup):
    clip = setup.base.manifest.clip
    noise = np.random.default_rng(0).integers(0, 256, (200, clip.height, clip.width, 3), np.uint8)
    screenings = screened(setup.folder, setup.base)
    assert setup.fitter.drawable(screenings) > 0.5
    assert setup.fitter.drawable(Screenings([noise], ["noise"], ["0"], [None])) < 0.2


def test_an_interval_keeps_neighbours_together(setup):
    stretch = chance.stretches(setup.recorded)
    assert len(np.unique(stretch)) == 11
    np.testing.assert_array_equal(stretch, setup.recorded.start_s // 24)
    two = replace(setup.recorded, film=np.arange(len(stretch)) % 2)
    assert len(np.unique(chance.stretches(two))) == 22


def test_noise_is_weighed_near_nothing():
    rng = np.random.default_rng(0)
    truth, noise, opposed = rng.normal(size=(3, 150, 20))
    good = truth + noise
    bad = 0.1 * (opposed - truth)
    weights = join([good, bad], truth)
    assert 0.4 < weights[0].mean() < 0.6
    assert 0 < weights[1].max() < 0.1
    (alone,) = join([bad], truth)
    assert 0 < alone.max() < 0.1


def test_the_voxels_that_see_are_chosen(setup, fitted):
    assert fitted.voxels is not None
    assert setup.recorded.fmri is not None
    chosen = setup.recorded.fmri.head.voxels[fitted.voxels]
    assert len(np.unique(chosen)) == setup.fitter.sizes.voxels
    share = len(head(SUBJECT).voxels) / len(setup.recorded.fmri.head.voxels)
    assert np.isin(chosen, head(SUBJECT).voxels).mean() > 8 * share


@pytest.mark.full
def test_the_curve_over_lags_follows_the_response_not_the_bundle(setup):
    curve = lag_curve(setup.recorded, setup.story, LAGS)
    assert 4 <= LAGS[curve.argmax()] <= 6.4
    assert implausible(LAGS, curve) is None
    # As if the film had begun 4 s later: each window is given the clip of the one before.
    moved = replace(setup.story, targets=np.roll(setup.story.targets, 1, axis=0))
    late = lag_curve(setup.recorded, moved, LAGS)
    assert LAGS[late.argmax()] <= 2.4
    warning = implausible(LAGS, late)
    assert warning is not None
    assert "began earlier or later" in warning


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        ([0.0, 0.01, 0.02, 0.01, 0.0], "hardly follow the film"),
        ([0.1, 0.2, 0.3, 0.4, 0.5], "at a lag of 8.0 s"),
        ([0.1, 0.4, 0.2, 0.1, 0.1], "at a lag of 2.0 s"),
        ([np.nan] * 5, "hardly follow the film"),
        ([np.nan, 0.1, 0.4, 0.2, 0.1], None),
    ],
)
def test_implausible_curves_are_named(curve, reason, tmp_path):
    lags = np.array([0.0, 2.0, 4.0, 6.0, 8.0])
    warning = implausible(lags, np.array(curve))
    assert (warning is None) if reason is None else (warning is not None and reason in warning)
    plot(lags, np.array(curve), 4.0, tmp_path / "lags.png")
    assert (tmp_path / "lags.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.full
@pytest.mark.parametrize("missing", ["eeg", "fmri"])
def test_one_modality_alone_is_fitted_and_the_other_draws_nothing(missing, setup, tmp_path):
    recorded = replace(setup.recorded, **{missing: None})
    encoder_fit = setup.fit(recorded)
    modality = "fmri" if missing == "eeg" else "eeg"
    assert set(encoder_fit.held_out) == {modality}
    assert encoder_fit.weights["reads"].tolist() == [float(name == modality) for name in ("fmri", "eeg")]
    for name in ("both_fmri", "both_eeg", f"{missing}_{missing}"):
        assert not encoder_fit.weights[name].any()
    bundle = write(setup.base, setup.fitter, encoder_fit, recorded, {"confidence": None}, tmp_path / "one")
    assert Decoder(bundle).steps == setup.base.manifest.steps


def test_only_the_participants_weights_change(setup, fitted):
    copy = setup.fitter.graphs(fitted)["encode"]
    before = {t.name: t for t in setup.model.graph.initializer}
    changed = {t.name.removesuffix(".half") for t in copy.graph.initializer if t != before[t.name]}
    assert {"voxels", "mixing", "both_fmri", "both_eeg", "eeg_feature_mean"} <= changed
    assert not {name for name in changed if name.startswith(("basis", "tokens", "null", "seam", "confid"))}
    assert copy.graph.node == setup.model.graph.node
    with refused(BundleError, "encoder-graph-shape-mismatch", weight="voxels"):
        replaced(setup.model, {"voxels": np.zeros((3, 3), np.float16)})
    other = onnx.ModelProto()
    other.CopyFrom(setup.model)
    tensors = {t.name.removesuffix(".half"): t for t in other.graph.initializer}
    tensors["voxels"].name = "pixels"
    with refused(BundleError, "encoder-graph-missing-weights", missing_weights=["voxels"]):
        weights_of(other, Path("bundle"), ("varied",))


def test_what_cannot_be_fitted_is_said(setup, tmp_path, monkeypatch):
    with refused(UsageError, "fit-bundle-without-fitter"):
        command.run([setup.folder], None, None, "haxby", tmp_path / "out")
    with refused(UsageError, "fit-film-missing", path=tmp_path / "no.mp4"):
        command.run([setup.folder], tmp_path / "no.mp4", None, str(setup.base.path), tmp_path / "out")
    with refused(UsageError, "fit-events-missing", path=tmp_path / "no.tsv"):
        command.run([setup.folder], None, tmp_path / "no.tsv", str(setup.base.path), tmp_path / "out")
    bare = replace(setup.base, stats={"eeg_mean": setup.base.stats["eeg_mean"]})
    with refused(BundleError, "fit-missing-statistics", missing_arrays=re.compile("codec_mean")):
        command.fitter_of(bare)
    short = replace(setup.recorded, start_s=setup.recorded.start_s[:10])
    monkeypatch.setattr(command, "read_recordings", lambda *arguments: short)
    with refused(UsageError, "fit-windows-too-few", min_windows=60, n_windows=10):
        command.run([setup.folder], None, None, str(setup.base.path), tmp_path / "out")
    assert setup.base.manifest.fmri is not None
    larger = replace(setup.base.manifest, fmri=replace(setup.base.manifest.fmri, voxels=90_000))
    quickly(setup, replace(setup.base, manifest=larger), fitted=None, monkeypatch=monkeypatch)
    with refused(UsageError, "fit-voxels-too-few", min_voxels=90000):
        command.run([setup.folder], None, None, str(setup.base.path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "cause"),
    [("nobodys-fitter", "there is no builder"), ("grid", "missing a required argument")],
)
def test_a_fitter_that_is_none_here_is_named_with_what_would_bring_it(setup, name, cause):
    other = replace(setup.base, manifest=replace(setup.base.manifest, fitter=name))
    with refused(
        BundleError,
        "fit-fitter-not-installed",
        path=setup.base.path,
        fitter=name,
        error=re.compile(cause),
        recipe=re.compile("^compact"),
        entry_point_group="rtdecode.builders",
    ):
        command.fitter_of(other)


def test_graphs_are_held_to_what_the_fit_says():
    expected = {"condition": np.random.default_rng(0).normal(size=(3, 2, 4))}
    actual = {"condition": np.concatenate([expected["condition"], np.ones((3, 1, 4))], 1)}
    assert compare(expected, actual) == {"condition": 0.0}
    actual["condition"][1, 0, 0] += 0.01
    with refused(
        BundleError,
        "fit-difference-too-large",
        output="condition",
        difference=pytest.approx(0.0118, abs=2e-3),
    ):
        compare(expected, actual)
    for outputs, words in (({}, "no outputs"), ({"start": expected["condition"]}, "the outputs start")):
        with refused(BundleError, "fit-outputs-mismatch", expected=words, actual=["condition"]):
            compare(outputs, actual)


def test_a_folder_with_something_else_is_refused_before_the_work(setup, tmp_path):
    (tmp_path / "letter.txt").write_text("keep me")
    with refused(UsageError, "output-folder-foreign-files", folder=tmp_path, folder_kind="bundle"):
        command.run([tmp_path / "not looked for"], None, None, str(setup.base.path), tmp_path)


@pytest.mark.full
def test_no_curve_is_drawn_where_no_bundle_is_written(setup, fitted, tmp_path, monkeypatch):
    def refuse(*_):
        raise BundleError("fit-encoder-differs", "the new encoder draws something else")

    monkeypatch.setattr(command, "read_recordings", lambda *_: setup.recorded)
    monkeypatch.setattr(participant, "fit", lambda *_: fitted)
    monkeypatch.setattr(command.lags, "sweep", lambda *_: {"lags_s": [0.0], "r2": [0.1]})
    monkeypatch.setattr(command, "write", refuse)
    with refused(BundleError, "fit-encoder-differs"):
        command.run([setup.folder], None, None, str(setup.base.path), tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_its_name_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    draw(Console(), {"lags_s": [0.0], "r2": [0.1]}, bundles.load("phantom").manifest, tmp_path / "mine")
    assert "pip install matplotlib" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_command_line_says_it_and_ends_with_2(tmp_path, monkeypatch, capsys):
    words = ["fit", str(tmp_path), "--bundle", "haxby", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["rtdecode", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "names no fitter" in capsys.readouterr().err


@pytest.mark.full
def test_a_fitted_bundle_can_be_fitted_again(setup, fitted_bundle):
    again = command.fitter_of(fitted_bundle[0])
    assert isinstance(again, CompactFitter)
    assert again.sizes == setup.fitter.sizes
    np.testing.assert_array_equal(again.space.basis, setup.fitter.space.basis)


@pytest.mark.full
@pytest.mark.timeout(2400)
def test_new_subjects_are_read_nearly_as_well_as_the_shipped_one(tmp_path):
    """The bar: at least 0.8 of the shipped subject's identification above chance, by the live path."""

    def session(subject: int, seed: int, seconds: float) -> Path:
        return record(PhantomSession("easy", subject, seed, seconds), tmp_path / f"{subject}-{seed}")

    def judged(subject: int, bundle: str) -> float:
        out = tmp_path / f"judged-{subject}"
        assert replay.run(session(subject, 1060 + subject, 240), bundle, "max", out, None) == 0
        report = json.loads((out / "report.json").read_text())
        return report["accuracy"]["identification_2way"]["value"]

    shipped = judged(1, "phantom")
    for subject in (2, 3):
        mine = tmp_path / f"subject-{subject}"
        command.run([session(subject, 3 + subject, 600)], None, None, "phantom", mine)
        accuracy = judged(subject, str(mine))
        assert accuracy - 0.5 >= 0.8 * (shipped - 0.5), (
            f"subject {subject}: {accuracy:.3f}, shipped {shipped:.3f}"
        )
