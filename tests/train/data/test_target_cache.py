"""Targets are computed once, and anew only where something has changed."""

import re
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.released import LENGTH, mindvideo
from tests.train.targets.models import LICENCE, Films, blip, clip_tower, umt5, wan_vae, whisper, words
from train.data.dataset import WindowTable
from train.data.target_cache import Kind, Target, compute, pooled_text, read
from train.targets.__main__ import main, read_arguments
from train.targets.captions import captions
from train.targets.embeddings import image, prompt, text
from train.targets.models import Hardware
from train.targets.transcripts import transcripts
from train.weights.source import Source

CPU = Hardware()
SOURCE = Source((Path("model.safetensors"),), "0" * 64, "safetensors", LICENCE)


class Means:
    """A target that counts its titles: the mean colour of each frame, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.lots: list[int] = []

    def target(self, digest: str = "0" * 64) -> Target:
        model = Source(SOURCE.paths, digest, SOURCE.form, LICENCE)
        return Target("means", "clips", model, {"factor": self.factor}, lambda: self.means)

    def means(self, clips: np.ndarray) -> dict[str, np.ndarray]:
        self.lots.append(len(clips))
        return {"values": self.factor * clips.mean((2, 3))}


def test_each_title_is_computed_once_and_found_by_its_name(tmp_path: Path) -> None:
    films = Films()
    means = Means()
    compute(films, [means.target()], tmp_path, lot=2)
    assert means.lots == [2, 2, 1]
    cached = read(tmp_path, "means")
    assert cached.shown == [*"abcde"]
    assert cached.values.shape == (5, 5, 3)
    assert cached.values.dtype == np.float16
    assert cached.counts is None
    rows = cached.rows(films.windows.shown)
    expected = np.stack([films.clips[title].mean((1, 2)) for title in films.windows.shown])
    np.testing.assert_allclose(cached.read(rows), expected, rtol=1e-3)
    assert cached.index["model"] == SOURCE.to_manifest()
    assert cached.index["options"] == {"factor": 1.0}
    with refused(UsageError, "targets-missing-titles", missing_count=1, missing_title="z"):
        cached.rows(["a", "z"])


def test_only_what_changed_is_computed_anew(tmp_path: Path) -> None:
    films = Films()
    means = Means()

    def again(target: Target, **how: str) -> list[int]:
        means.lots.clear()
        compute(films, [target], tmp_path, lot=2, **how)
        return list(means.lots)

    assert again(means.target()) == [2, 2, 1]
    assert again(means.target()) == []
    before = read(tmp_path, "means").read(slice(None))
    films.clips["c"][0, 0, 0, 0] ^= 255
    assert again(means.target()) == [2]
    after = read(tmp_path, "means").read(slice(None))
    assert (before != after).any((1, 2)).tolist() == [False, False, True, False, False]
    assert again(means.target("1" * 64)) == [2, 2, 1]
    means.factor = 2.0
    assert again(means.target()) == [2, 2, 1]
    assert again(means.target(), stored="bfloat16") == [2, 2, 1]
    means.factor = 1.0
    assert again(means.target()) == []


def test_an_interruption_leaves_whole_files_and_is_gone_on_from(tmp_path: Path) -> None:
    films = Films()
    means = Means()
    target = means.target()

    def stopping(clips: np.ndarray) -> dict[str, np.ndarray]:
        if len(means.lots) == 2:
            raise KeyboardInterrupt
        return means.means(clips)

    with pytest.raises(KeyboardInterrupt):
        compute(films, [Target("means", "clips", SOURCE, target.options, lambda: stopping)], tmp_path, lot=2)
    with refused(UsageError, "targets-missing-index", folder=tmp_path / "means", index_file="index.json"):
        read(tmp_path, "means")
    files = {path.name for path in (tmp_path / "means").iterdir()}
    assert len(files) == 2
    compute(films, [target], tmp_path, lot=2)
    assert means.lots == [2, 2, 1]
    assert files < {path.name for path in (tmp_path / "means").iterdir()}
    first = read(tmp_path, "means").index["files"][0]
    (tmp_path / "means" / first).unlink()
    with refused(UsageError, "targets-missing-files", missing_count=1, missing_file=first):
        read(tmp_path, "means")


@pytest.mark.parametrize(("stored", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_values_are_rounded_to_what_is_stored(tmp_path: Path, stored: str, error: float) -> None:
    films = Films()
    compute(films, [Means(1 / 3).target()], tmp_path, stored=stored)
    rounded = read(tmp_path, "means").read(slice(None))
    exact = np.stack([films.clips[title].mean((1, 2)) for title in "abcde"]) / 3
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, exact, rtol=error)
    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}[stored]
    # torch rounds in the same way.
    assert torch.equal(torch.from_numpy(rounded), torch.from_numpy(exact).float().to(kind).float())


@pytest.mark.parametrize(
    ("factor", "code"), [(1e9, "targets-float16-overflow"), (np.nan, "targets-non-finite")]
)
def test_values_that_cannot_be_stored(tmp_path: Path, factor: float, code: str) -> None:
    target = Target("means", "clips", SOURCE, {}, lambda: Means(factor).means)
    with refused(UsageError, code, target_lot="means of a and others"):
        compute(Films(), [target], tmp_path)
    assert not list((tmp_path / "means").iterdir())


def test_captions_are_written_first_and_then_embedded(tmp_path: Path) -> None:
    films = Films()
    blip(tmp_path / "blip")
    clip_tower(tmp_path / "clip")
    written = captions(tmp_path / "blip", CPU, licence=LICENCE, tokens=4)
    embedded = text(tmp_path / "clip", CPU, licence=LICENCE)
    compute(films, [written, embedded], tmp_path, lot=2)
    sentences = read(tmp_path, "captions").read(slice(None))
    assert sentences.dtype.kind == "U"
    expected = embedded.opened()(sentences)["values"]
    np.testing.assert_allclose(read(tmp_path, "text").read(slice(None)), expected, rtol=1e-2, atol=1e-3)


def test_captions_of_the_data_set_are_embedded(tmp_path: Path) -> None:
    films = Films(captions=True)
    clip_tower(tmp_path / "clip")
    embedded = text(tmp_path / "clip", CPU, licence=LICENCE)
    compute(films, [embedded], tmp_path)
    expected = embedded.opened()(np.array([films.captions[title] for title in "abcde"]))["values"]
    np.testing.assert_allclose(read(tmp_path, "text").read(slice(None)), expected, rtol=1e-2, atol=1e-3)
    assert films.read_rows == []
    with refused(
        UsageError,
        "targets-missing-input",
        target="text",
        input_kind="captions",
        available="clips",
        advice=re.compile("captioner="),
    ):
        compute(Films(), [embedded], tmp_path)


def test_captions_are_embedded_as_a_vector_and_token_by_token_at_once(tmp_path: Path) -> None:
    films = Films(captions=True)
    clip_tower(tmp_path / "clip")
    umt5(tmp_path / "wan")
    vectors = text(tmp_path / "clip", CPU, licence=LICENCE)
    tokens = prompt(tmp_path / "wan" / "text_encoder", CPU, licence=LICENCE)
    compute(films, [vectors, tokens], tmp_path, lot=2)
    assert pooled_text(read(tmp_path, "text")).values.shape == (5, 6)
    embedded = read(tmp_path, "prompt")
    assert embedded.values.shape == (5, 8, 8)
    assert embedded.counts is not None
    assert embedded.counts[:].tolist() == [5] * 5


def test_transcripts_are_kept_as_text_and_need_sound(tmp_path: Path) -> None:
    whisper(tmp_path / "whisper")
    written = transcripts(tmp_path / "whisper", CPU, licence=LICENCE, tokens=3)
    compute(Films(sound=True), [written], tmp_path, lot=2)
    cached = read(tmp_path, "transcripts")
    assert cached.index["stored"] == "text"
    sentences = cached.read(cached.rows(["a", "c"])).tolist()
    assert sentences[0] == ""
    assert len(sentences[1].split()) == 3
    with refused(
        UsageError, "targets-missing-input", target="transcripts", input_kind="sound", available="clips"
    ):
        compute(Films(), [written], tmp_path)


def test_all_models_are_tried_before_the_first_computes(tmp_path: Path) -> None:
    films = Films(captions=True)
    clip_tower(tmp_path / "clip")
    # The tokenizer of SigLIP 2 states no longest text.
    words(tmp_path / "clip", longest=10**30)
    embedded = text(tmp_path / "clip", CPU, licence=LICENCE)
    means = Means()
    with refused(UsageError, "tokenizer-missing-max-length", folder=tmp_path / "clip", suggestion=6):
        compute(films, [means.target(), embedded], tmp_path / "out", lot=2)
    assert means.lots == [1]
    assert not (tmp_path / "out").exists()
    compute(films, [means.target(), text(tmp_path / "clip", CPU, licence=LICENCE, tokens=6)], tmp_path, lot=2)
    assert means.lots == [1, 1, 2, 2, 1]


def test_values_that_cannot_be_stored_are_found_before_the_first_target_is_computed(tmp_path: Path) -> None:
    means = Means()
    large = Target("large", "clips", SOURCE, {}, lambda: Means(1e9).means)
    with refused(UsageError, "targets-float16-overflow", target_lot="large of a and others"):
        compute(Films(), [means.target(), large], tmp_path, lot=2)
    assert means.lots == [1]


def test_a_caption_that_is_written_for_the_trial_is_embedded(tmp_path: Path) -> None:
    blip(tmp_path / "blip")
    clip_tower(tmp_path / "clip")
    embedded_captions: list[str] = []

    def embedding(written: np.ndarray) -> dict[str, np.ndarray]:
        embedded_captions.extend(written.tolist())
        return {"values": np.ones((len(written), 2))}

    embedded = Target("text", "captions", SOURCE, {}, lambda: embedding)
    compute(Films(), [captions(tmp_path / "blip", CPU, licence=LICENCE, tokens=4), embedded], tmp_path)
    assert len(embedded_captions) == 1 + 5
    assert embedded_captions[0] == embedded_captions[1] == read(tmp_path, "captions").read(0)


def test_targets_without_room_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Five titles, five frames, three colours, two bytes each; twice.
    needed = 2 * 5 * 5 * 3 * 2
    targets = [Means().target(), Target("more", "clips", SOURCE, {}, lambda: Means().means)]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with refused(UsageError, "targets-insufficient-disk", count=5, needed_gb=needed / 1e9):
        compute(Films(), targets, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    compute(Films(), targets, tmp_path)
    assert read(tmp_path, "more").values.shape == (5, 5, 3)


def test_a_language_that_the_model_does_not_take_is_refused_where_it_is_opened(tmp_path: Path) -> None:
    """The small model is of one language."""
    whisper(tmp_path / "whisper")
    written = transcripts(tmp_path / "whisper", CPU, licence=LICENCE, language="xx")
    means = Means()
    with refused(UsageError, "speech-language-unsupported", language="xx", folder=str(tmp_path / "whisper")):
        compute(Films(sound=True), [means.target(), written], tmp_path, lot=2)
    assert means.lots == [1]


def test_another_model_is_another_key(tmp_path: Path) -> None:
    for seed in (0, 1):
        clip_tower(tmp_path / str(seed), seed)
    first, same, other = (image(tmp_path / name, CPU, licence=LICENCE) for name in "001")
    assert first.source.digest == same.source.digest != other.source.digest
    # What prepares the inputs counts too.
    settings = tmp_path / "0" / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace('"do_center_crop": true', '"do_center_crop": false'))
    assert image(tmp_path / "0", CPU, licence=LICENCE).source.digest != first.source.digest


def test_clips_of_different_shapes_are_refused(tmp_path: Path) -> None:
    class Uneven(Films):
        def read(self, column, rows):
            return super().read(column, rows)[:, : 4 if self.windows.subject[rows[0]] == "02" else 5]

    films = Uneven()
    films.windows.shown[6:] = [*"vwxyz"]
    films.clips |= {new: films.clips[old] for new, old in zip("vwxyz", "abcde", strict=True)}
    with refused(UsageError, "targets-shape-mismatch", input_kind="clips", first_title="a", last_title="z"):
        compute(films, [Means().target()], tmp_path)


def test_captions_of_frames_are_those_of_clips_where_there_are_no_others(tmp_path: Path) -> None:
    def lengths(name: str, kind: Kind) -> Target:
        """Count the letters of captions."""
        count = np.vectorize(len)
        return Target(
            name, kind, SOURCE, {}, lambda: lambda texts: {"values": count(texts).astype(np.float32)}
        )

    films = Films(captions=True)
    targets = [lengths("clips", "captions"), lengths("frames", "frame_captions")]
    compute(films, targets, tmp_path / "own")
    of_clips = read(tmp_path / "own", "clips").read(slice(None))
    assert of_clips.tolist() == [len(films.captions[title]) for title in "abcde"]
    assert read(tmp_path / "own", "frames").read(slice(None)).tolist() == of_clips[:, None].tolist()

    # A captioner that writes of both frames: the first is the clip's.
    written = np.array(["a cat", "the red dog"])

    def write(clips: np.ndarray) -> dict[str, np.ndarray]:
        return {"values": np.tile(written, (len(clips), 1))}

    captioner = Target("captions", "clips", SOURCE, {}, lambda: write)
    compute(Films(), [captioner, *targets], tmp_path / "written")
    assert read(tmp_path / "written", "captions").read(slice(0, 1)).tolist() == [[*written]]
    assert read(tmp_path / "written", "clips").read(slice(None)).tolist() == [5] * 5
    assert read(tmp_path / "written", "frames").read(slice(None)).tolist() == [[5, 11]] * 5


def test_the_command_computes_what_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mindvideo(tmp_path / "data")
    clip_tower(tmp_path / "clip")
    wan_vae(tmp_path / "vae")
    arguments = [
        f"image={tmp_path / 'clip'}",
        "image.licence=MIT",
        "image.frames=2",
        f"vae={tmp_path / 'vae'}",
    ]
    assert main([str(tmp_path / "data"), *arguments]) == 2
    assert "vae.licence=" in capsys.readouterr().err
    with refused(UsageError, "targets-model-missing-option", model="vae", option="licence"):
        read_arguments(arguments)
    arguments += ["vae.licence=Apache-2.0", "vae.frames=5", "vae.size=16x16", "device=cpu", "stored=bfloat16"]
    arguments.append("vae.sample=true")
    assert main([str(tmp_path / "data"), *arguments]) == 0
    out = tmp_path / "data-targets"
    assert capsys.readouterr().out.strip() == str(out)
    # 23 segments, which both subjects saw.
    titles = 23 * LENGTH
    assert read(out, "image").values.shape == (titles, 2, 6)
    cached = read(out, "vae")
    assert cached.values.shape == (titles, 4, 2, 2, 2)
    assert cached.deviations is not None
    assert cached.deviations.shape == cached.values.shape
    assert cached.index["model"]["licence"] == "Apache-2.0"
    assert str(tmp_path) not in (out / "vae" / "index.json").read_text()


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        ([], "targets-missing-model", {"available": re.compile("vae=DIR.*image=DIR")}),
        (
            ["picture=x", "image.size=3"],
            "targets-unknown-key",
            {"arguments": ["picture=x", "image.size=3"], "available": re.compile("vae.*image")},
        ),
        (["image.frames=some"], "targets-count-malformed", {"key": "image.frames", "actual": "some"}),
        (["vae.sample=often"], "targets-option-not-boolean", {"key": "vae.sample", "actual": "often"}),
        (["lot=0"], "targets-count-malformed", {"key": "lot", "actual": "0"}),
        (
            ["image.licence=MIT"],
            "targets-model-missing-option",
            {"model": "image", "option": "folder", "example": "image=DIR"},
        ),
    ],
)
def test_arguments_that_cannot_be_taken(changes: list[str], code: str, values: dict[str, Any]) -> None:
    with refused(UsageError, code, **values):
        read_arguments(changes)


def test_an_empty_data_set(tmp_path: Path) -> None:
    films = Films()
    films.windows = WindowTable(*(getattr(films.windows, column.name)[:0] for column in fields(WindowTable)))
    with refused(UsageError, "targets-data-set-empty"):
        compute(films, [Means().target()], tmp_path)
    with refused(UsageError, "targets-lot-too-small", lot=0):
        compute(Films(), [], tmp_path, lot=0)


def test_what_is_stored_must_be_known(tmp_path: Path) -> None:
    with refused(UsageError, "targets-dtype-unknown", dtype="float64", available="float16 and bfloat16"):
        compute(Films(), [], tmp_path, stored="float64")
