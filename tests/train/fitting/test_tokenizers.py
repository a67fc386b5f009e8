"""A newcomer's tokenizers are fitted in closed form, and the rest of the encoder stays as it was."""

import contextlib
import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.newcomer import read as newcomer_figures
from benchmarks.played import record
from export import fit as command
from export import run as exporting
from export.fitted import verified
from rtdecode import bundle as bundles
from rtdecode import strict_json
from rtdecode.bundle import Bundle
from rtdecode.bundle.graph import Graph
from rtdecode.errors import BundleError, GeometryError, RtDecodeError, UsageError
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.volume.projection import Projection
from streaming.session import replay
from tests.refusals import refused
from train.artifacts.run_folder import restored
from train.closed_form import patch_codec
from train.closed_form.film_encoding import fit_features
from train.closed_form.film_space import ClipTargets
from train.closed_form.structure import structure
from train.config.recipe import build
from train.config.run_files import read_run
from train.data.films import clips_at
from train.data.phantom import session_clips
from train.data.recorded import Eeg, Fmri, Recorded
from train.fitting import tokenizer_graph
from train.fitting.film_tokens import FilmSteps, FilmTokens, Tokenizing
from train.fitting.fitter import Screenings, identified
from train.fitting.tokenizers import TokenizerFit, TokenizerFitter, TokenStory, tokenizer_fitter
from train.make_fittable import make_fittable

RUN = Path(__file__).parents[3] / "train" / "runs" / "cinesync-tiny"
WINDOWS = 40
SLOTS = 5
HEAD = 2400


@dataclass(frozen=True)
class Newcomer:
    """Somebody whose signals are others, and made by what a film does to the tokenizers of the bundle."""

    fitter: TokenizerFitter
    films: Screenings
    recorded: Recorded
    story: TokenStory

    def identify(self, fitted: TokenizerFit, route: str, story: TokenStory | None = None) -> float:
        story = story or self.story
        return float(identified(fitted.held_out[route], self.recorded, story).mean())


def film_of(rng: np.random.Generator) -> np.ndarray:
    """Places whose colours come and go, at 8 frames a second, for as long as there are windows."""
    steps = rng.normal(size=(WINDOWS * 8 + 8, 2, 3, 3))
    slow = sum(np.roll(steps, n, axis=0) for n in range(9))[8:]
    places = np.clip(128 + 20 * slow, 0, 255).astype(np.uint8)
    # Each stays for half a second.
    return places.repeat(4, axis=0).repeat(32, axis=1).repeat(32, axis=2)


def told_by(film: np.ndarray, reads: Tokenizing, base: Bundle, rng: np.random.Generator) -> FilmTokens:
    """Let the film lead to tokens at random."""
    clips = clips_at(film, np.arange(WINDOWS) * 4.0, base.manifest.clip, 32)
    codec = patch_codec.fit_codec(clips[::4], 16)
    film_seen = ClipTargets(patch_codec.encode(codec, clips), structure(clips))
    features = fit_features(film_seen, 4.0)
    assert reads.shares is not None
    assert reads.pooled is not None
    assert reads.channels is not None
    size = features.series(film_seen).shape[1]
    axes = rng.normal(size=(8, reads.pooled.shape[1] * reads.channels.shape[1]))
    steps = 8 * size
    return FilmTokens(
        codec,
        features,
        rng.normal(size=(size, len(reads.shares))),
        FilmSteps(np.zeros(steps), rng.normal(size=(steps, 8)), axes),
    )


@pytest.fixture(scope="module")
def newcomer() -> Newcomer:
    rng = np.random.default_rng(0)
    base = bundles.load("cinesync-tiny")
    film = film_of(rng)
    reads = tokenizer_graph.tokenizing_of(onnx.load_model_from_string(base.read("encode.onnx")), base.path)
    film_tokens = told_by(film, reads, base, rng)
    fitter = tokenizer_fitter(replace(base, stats=base.stats | film_tokens.arrays()))
    films = Screenings([film], ["film.mp4"], ["0"], [None])
    starts = np.arange(WINDOWS) * 4.0
    slot_s = 4 + 0.8 * (np.arange(SLOTS) + 0.5)
    fmri = Fmri(
        head=Projection(np.arange(HEAD), (20, 12, 10), np.diag([3.0, 3.0, 3.0, 1.0])),
        level=np.full(HEAD, 500, np.float32),
        volumes=np.zeros((WINDOWS * SLOTS, HEAD), np.float32),
        film=np.zeros(WINDOWS * SLOTS, np.int64),
        times=(starts[:, None] + slot_s).ravel(),
        rows=np.arange(WINDOWS * SLOTS).reshape(WINDOWS, SLOTS),
        slot_s=slot_s,
    )
    eeg = Eeg(np.zeros((WINDOWS, 64, 500), np.float32), np.ones((WINDOWS, 500), np.bool_))
    blank = Recorded(eeg, fmri, np.zeros(WINDOWS, np.int64), starts)
    story = fitter.story(blank, films)
    # The brain of the newcomer: any mixture of the tokens that the film leads to, and noise.
    sums = story.tokens["fmri"] / story.tokens["fmri"].std()
    evoked = sums @ rng.normal(size=(sums.shape[1], HEAD)) / 10
    volumes = (10 * (evoked + 0.3 * rng.normal(size=evoked.shape))).astype(np.float32)
    unmixed = tokenizer_graph.as_signals(reads, {"eeg": story.tokens["eeg"]}, 64)["eeg"]
    mixed = np.linalg.qr(rng.normal(size=(64, 64)))[0] @ unmixed
    data = (mixed / mixed.std() + 0.5 * rng.normal(size=mixed.shape)).astype(np.float32)
    recorded = replace(blank, fmri=replace(fmri, volumes=volumes), eeg=replace(eeg, data=data))
    return Newcomer(fitter, films, recorded, story)


@pytest.fixture(scope="module")
def fitted(newcomer: Newcomer) -> TokenizerFit:
    return newcomer.fitter.fit(newcomer.recorded, newcomer.story)


def run(graph: Graph, windows: dict[str, np.ndarray]) -> np.ndarray:
    """The condition of windows, one after the other."""
    count = len(windows["fmri"])
    conditions = [
        graph({name: x[n : n + 1] for name, x in windows.items()})["condition"] for n in range(count)
    ]
    return np.concatenate(conditions)


def golden_of(newcomer: Newcomer) -> dict[str, np.ndarray]:
    golden = newcomer.fitter.base.golden()
    return {name: golden[name].astype(np.float32) for name in newcomer.fitter.graph.inputs}


def test_what_films_lead_to_comes_out_of_a_bundle_as_it_went_in(newcomer):
    film_tokens = newcomer.fitter.film
    again = FilmTokens.of(film_tokens.arrays())
    assert again is not None
    clips = clips_at(newcomer.films.films[0], [0.0, 8.0], newcomer.fitter.base.manifest.clip, 32)
    np.testing.assert_allclose(again.tokens_of(clips), film_tokens.tokens_of(clips), rtol=1e-4, atol=1e-3)
    volumes_only = FilmTokens.of(replace(film_tokens, steps=None).arrays())
    assert volumes_only is not None
    assert volumes_only.steps is None
    assert FilmTokens.of({"eeg_mean": np.zeros(64)}) is None


def test_tokenizers_for_signals_in_another_order_make_the_same_clips(newcomer):
    fitter = newcomer.fitter
    rng = np.random.default_rng(1)
    voxels = rng.permutation(fitter.reads.shares.shape[1])
    channels = rng.permutation(64)
    over = fitter.reads.channels.reshape(-1, 64, fitter.reads.channels.shape[1])
    weights = {
        "shares": fitter.reads.shares[:, voxels],
        "channels": over[:, channels].reshape(-1, over.shape[2]),
    }
    model = tokenizer_graph.replaced(fitter.encoder, weights, Path(), unread=None, yields=None)
    windows = golden_of(newcomer)
    turned = windows | {"fmri": windows["fmri"][:, :, voxels], "eeg": windows["eeg"][:, channels]}
    mine = run(Graph(model.SerializeToString(), "encode.onnx"), turned)
    np.testing.assert_allclose(mine, run(fitter.graph, windows), atol=1e-4)


def test_signals_are_found_for_any_tokens(newcomer):
    reads = newcomer.fitter.reads
    rng = np.random.default_rng(2)
    sums = rng.normal(size=(2, SLOTS, len(reads.shares)))
    tokens = rng.normal(size=(2, reads.pooled.shape[1], reads.channels.shape[1]))
    signals = tokenizer_graph.as_signals(reads, {"fmri": sums, "eeg": tokens}, 64)
    np.testing.assert_allclose(signals["fmri"] @ reads.shares.T, sums, atol=1e-4)
    np.testing.assert_allclose(reads.channel_parts(signals["eeg"]) @ reads.channels, tokens, atol=1e-3)


def test_held_out_windows_are_identified_and_those_of_another_film_are_not(newcomer, fitted):
    for route in ("both", "fmri", "eeg"):
        assert newcomer.identify(fitted, route) > 0.7
    other = newcomer.story.shifted(0.5)
    control = newcomer.fitter.fit(newcomer.recorded, other)
    for route in ("both", "fmri", "eeg"):
        assert 0.3 < newcomer.identify(control, route, other) < 0.65


def test_the_fitted_graph_makes_of_the_newcomer_what_the_old_one_makes_of_the_same_tokens(newcomer, fitted):
    fitter = newcomer.fitter
    windows = golden_of(newcomer)
    tokenizers = tokenizer_graph.rounded(fitter.encoder, fitted.weights, Path())
    # The offset over time counts once for each voxel's weight.
    np.testing.assert_allclose(tokenizers.shares.sum(1), fitter.reads.shares.sum(1), atol=0.05)
    models = {name: graph.SerializeToString() for name, graph in fitter.graphs(fitted).items()}
    _, parity = verified(fitter.base, models, windows, lambda golden: fitter.expected(fitted, golden))
    assert parity["largest_difference"]["condition"] < 1e-3


def test_a_modality_that_was_not_recorded_is_never_read(newcomer):
    recorded = replace(newcomer.recorded, fmri=None)
    story = replace(newcomer.story, tokens={"eeg": newcomer.story.tokens["eeg"]})
    eeg_fit = newcomer.fitter.fit(recorded, story)
    assert list(eeg_fit.held_out) == ["eeg"]
    assert eeg_fit.unread == "fmri"
    graph = Graph(newcomer.fitter.graphs(eeg_fit)["encode"].SerializeToString(), "encode.onnx")
    windows = golden_of(newcomer)
    without = windows | {name: np.zeros_like(windows[name]) for name in ("fmri", "fmri_mask")}
    np.testing.assert_array_equal(run(graph, windows), run(graph, without))


@pytest.mark.parametrize(("yields", "other"), [("eeg", "fmri"), ("fmri", "eeg")])
def test_a_modality_gives_way_only_where_the_other_is_there(newcomer, yields, other):
    fitter = newcomer.fitter
    model = tokenizer_graph.replaced(fitter.encoder, {}, Path(), unread=None, yields=yields)
    windows = golden_of(newcomer)
    windows = {name: value[:1] for name, value in windows.items()}
    absent = {name: np.zeros_like(windows[name]) for name in (yields, f"{yields}_mask")}
    alone = {name: np.zeros_like(windows[name]) for name in (other, f"{other}_mask")}
    graph = Graph(model.SerializeToString(), "encode.onnx")
    both = graph(windows)["condition"]
    np.testing.assert_allclose(both, fitter.graph(windows | absent)["condition"], atol=1e-5)
    lone = graph(windows | alone)["condition"]
    np.testing.assert_allclose(lone, fitter.graph(windows | alone)["condition"], atol=1e-5)
    assert np.abs(both - lone).max() > 0.01
    # A fit that starts from a fitted bundle knows nothing of its gates.
    again = tokenizer_graph.replaced(model, {}, Path(), unread=None, yields=None)
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in fitter.encoder.graph.node]
    np.testing.assert_array_equal(
        Graph(again.SerializeToString(), "encode.onnx")(windows)["condition"],
        fitter.graph(windows)["condition"],
    )


def test_what_cannot_be_fitted_is_said(newcomer):
    base = newcomer.fitter.base
    stats = {name: value for name, value in base.stats.items() if not name.startswith("film_")}
    bare = replace(base, manifest=replace(base.manifest, fitter="tokenizer-fitter"), stats=stats)
    with refused(BundleError, "fit-missing-film-tokens"):
        command.fitter_of(bare)
    other = onnx.load_model_from_string(bundles.load("phantom").read("encode.onnx"))
    with refused(
        BundleError, "encoder-graph-missing-tokenizers", missing_weights=["shares", "channels", "pooled"]
    ):
        tokenizer_graph.tokenizing_of(other, Path("phantom"))
    # `tests.export.test_fit` holds that fewer are refused.
    assert newcomer.fitter.least_windows == 30


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of the shipped run, made fittable by two sessions of five minutes."""
    place = tmp_path_factory.mktemp("base")
    shutil.copytree(RUN, place / "run")
    tree = read_run(RUN)
    tree["arguments"]["data"] |= {"sessions": "0", "seconds": 300}
    (place / "run" / "run.json").write_text(strict_json.dumps(tree))
    make_fittable(place / "run", place / "fittable", place / "stages")
    with contextlib.redirect_stdout(io.StringIO()):
        return exporting.run(place / "fittable", place / "bundle")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five minutes of participant 3, who is another one."""
    return record(
        PhantomSession("easy", 3, 600, 300, sfreq=250, film="natural"), tmp_path_factory.mktemp("recording")
    )


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_command_takes_the_bundle_to_another_participant(base, recording, tmp_path):
    assert base.manifest.fitter == "tokenizer-fitter"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        command.run([recording], None, None, str(base.path), tmp_path / "mine")
    assert "75 windows" in printed.getvalue()
    mine = bundles.load(tmp_path / "mine")
    held_out = mine.manifest.provenance["fitted"]["held_out"]["both"]
    assert held_out["value"] > 0.65
    assert abs(held_out["shifted"] - 0.5) < 0.1
    for name in ("denoise.onnx", "decode_first.onnx", "decode_next.onnx"):
        assert mine.manifest.files[name] == base.manifest.files[name]
    # A session that no fit has seen is identified by what the encoder says of it, and was not before.
    session = PhantomSession("easy", 3, 1066, 160, sfreq=250, film="natural")
    unseen = record(session, tmp_path / "unseen")
    aims = restored(RUN, build(read_run(RUN)["arguments"])["system"]).targets(
        session_clips(mine.manifest, session)
    )
    before, after = (
        newcomer_figures(bundle, unseen, aims, tmp_path / f"read-by-{bundle.path.name}")
        for bundle in (base, mine)
    )
    assert after["both"]["value"] > 0.65
    assert before["both"]["value"] < 0.6
    report = tmp_path / "report.json"
    replay.run(unseen, str(mine.path), "max", out=tmp_path / "out", report=report)
    assert json.loads(report.read_text())["windows"]["final"] == 40


@pytest.mark.full
@pytest.mark.timeout(900)
def test_another_film_or_another_cap_gives_no_bundle(base, recording, tmp_path):
    PhantomSession("easy", 3, seed=601, seconds=300, film="natural").truth(tmp_path)
    with refused(RtDecodeError, "fit-not-above-chance"):
        command.run([recording], tmp_path / "film.mp4", None, str(base.path), tmp_path / "mine")
    capped = shutil.copytree(recording, tmp_path / "capped")
    meta = json.loads((capped / "recording.json").read_text())
    meta["montage"]["channels"] = [f"X{name}" for name in meta["montage"]["channels"]]
    (capped / "recording.json").write_text(json.dumps(meta))
    with refused(GeometryError, "montage-missing-channels", bundle_channel_count=64):
        command.run([capped], None, None, str(base.path), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_only_runs_on_sessions_can_be_made_fittable(tmp_path):
    with refused(UsageError, "fittable-run-unsupported", system="category"):
        make_fittable(RUN.with_name("haxby"), tmp_path / "out", tmp_path)
    with refused(UsageError, "output-folder-not-empty"):
        make_fittable(RUN, RUN, tmp_path)
