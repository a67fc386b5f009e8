"""Whether the finals hold a brain: sentences, the report's section, and the record."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rtdecode.bundle import Bundle, write
from rtdecode.bundle.graph import Graph
from rtdecode.errors import BundleError
from rtdecode.types import Presence
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoder
from streaming.sinks import report
from streaming.sinks.clip_emitter import ClipEmitter
from streaming.sinks.film import FilmSink
from streaming.sinks.presence import PresenceLog, mean_odds
from streaming.status import Status
from tests.refusals import refused
from tests.streaming.bundles import BRAIN, make_bundle
from tests.streaming.sinks.test_clip_emitter import opened
from tests.streaming.windows import window

SURE = Presence(0.9, 0.05, 0.05)
EVEN = Presence(0.5, 0.3, 0.2)
BLANK = Presence(0.1, 0.1, 0.8)
MIXED = Presence(0.1, 0.8, 0.1)
HALF = Presence(0.45, 0.35, 0.2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", brain=BRAIN)


BOTH = {"eeg": 0.9, "fmri": 0.9}
Final = tuple[Presence, Mapping[str, float | None] | None]


def presence_log(*finals: Final) -> tuple[PresenceLog, list[tuple[float, str]]]:
    """Follow finals every 4 s; return the log, and each sentence with the start of its final."""
    log = PresenceLog(BRAIN)
    sentences = [
        (4.0 * k, sentence)
        for k, (presence, by) in enumerate(finals)
        for sentence in log.add(4.0 * k, presence, by)
    ]
    return log, sentences


def followed(*finals: Presence) -> tuple[PresenceLog, dict[float, str]]:
    """Follow finals of which each modality is read."""
    log, sentences = presence_log(*((presence, BOTH) for presence in finals))
    return log, dict(sentences)


def section(log: PresenceLog) -> dict[str, Any]:
    brain_section = log.section()
    assert brain_section is not None
    return brain_section


def test_five_means_in_a_row_say_that_it_is_gone_and_back() -> None:
    log, sentences = followed(SURE, *[BLANK] * 9, *[SURE] * 9)
    assert list(sentences) == [32.0, 64.0]
    assert sentences[32.0].startswith("No readable brain has been seen since 4.0 s of the session.")
    assert sentences[64.0] == "A readable brain has been seen again since 40.0 s of the session."
    report = section(log)
    assert report["gone"] == [{"from_s": 4.0, "to_s": 40.0, "kind": "neither"}]
    assert report["finals"] == 19
    assert report["share"] == pytest.approx(10 / 19)
    assert report["prior"] == {"brain": 0.5, "inconsistent": 0.25, "neither": 0.25}


def test_single_finals_that_are_wrong_say_nothing() -> None:
    # Two of five, each no further from 0 than the three others.
    log, sentences = followed(*[SURE, BLANK, SURE, BLANK, SURE] * 6)
    assert sentences == {}
    assert section(log)["gone"] == []
    assert followed(*[BLANK] * 8)[1] == {}, "four means are too few"


def test_no_final_outweighs_the_others() -> None:
    certain = Presence(0.0, 0.0, 1.0)
    likely = Presence(0.9, 0.05, 0.05)
    assert followed(*[certain, likely, likely, likely, likely] * 4)[1] == {}
    assert mean_odds([1.0, 0.0]) == 0
    assert mean_odds([0.5] * 5) == 0
    assert mean_odds([1.0]) == 4


def test_signals_that_do_not_belong_together_are_told_as_such() -> None:
    log, sentences = followed(SURE, *[MIXED] * 9)
    assert sentences[32.0].startswith("EEG and fMRI have not belonged together since 4.0 s of the session.")
    assert section(log)["gone"] == [{"from_s": 4.0, "to_s": None, "kind": "inconsistent"}]
    _, sentences = followed(*[HALF] * 9)
    assert sentences[32.0].startswith("No readable brain"), "inconsistent is not the largest of the three"


def test_the_kind_of_a_spell_is_that_of_all_its_finals() -> None:
    log, _ = followed(*[MIXED] * 9, *[BLANK] * 30, *[SURE] * 12, *[MIXED] * 12)
    first, second = section(log)["gone"]
    assert first == {"from_s": 0.0, "to_s": 156.0, "kind": "neither"}
    assert second["kind"] == "inconsistent"


def test_a_modality_that_is_not_read_is_named() -> None:
    noisy = {"eeg": 0.0, "fmri": 0.98}
    log, spoken = presence_log(*[(SURE, BOTH)] * 2, *[(BLANK, noisy)] * 9, *[(SURE, BOTH)] * 5)
    sentences = [sentence for _, sentence in spoken]
    assert sentences[0].startswith("EEG: nothing readable since 8.0 s of the session; the volumes are read.")
    assert sentences[1].startswith("No readable brain has been seen since 8.0 s")
    assert sentences[2] == "EEG: readable again since 44.0 s of the session."
    assert section(log)["gone_by"] == {"eeg": [{"from_s": 8.0, "to_s": 44.0}], "fmri": []}
    neither = {"eeg": 0.0, "fmri": 0.0}
    sentences = [sentence for _, sentence in presence_log(*[(BLANK, neither)] * 5)[1]]
    assert [words.split(".")[0] for words in sentences] == [
        "EEG: nothing readable since 0",
        "fMRI: nothing readable since 0",
    ]
    assert not any("are read" in words or "is read" in words for words in sentences)
    ((_, sentence),) = presence_log(*[(SURE, {"eeg": 0.0, "fmri": None})] * 5)[1]
    assert "are read" not in sentence, "there are no volumes"


def test_one_modality_is_of_this_participant_and_no_brain() -> None:
    alone = {"eeg": None, "fmri": 0.9}
    _, spoken = presence_log(*[(BLANK, alone)] * 9, *[(SURE, alone)] * 9)
    sentences = [sentence for _, sentence in spoken]
    assert sentences[0].startswith("No signals of this participant have been seen since 0.0 s")
    assert sentences[1] == "Signals of this participant have been seen again since 36.0 s of the session."


def test_a_bundle_that_tells_no_modalities_apart_says_so_once() -> None:
    _, spoken = presence_log(*[(SURE, None)] * 3)
    ((start_s, sentence),) = spoken
    assert start_s == 0
    assert "brain_by is null" in sentence


def test_before_the_first_final_no_share_is_known() -> None:
    assert section(PresenceLog(BRAIN))["share"] is None
    assert PresenceLog(None).section() is None


def test_the_decoder_says_what_the_graph_says(bundle: Bundle, tmp_path: Path) -> None:
    presence = Decoder(bundle).decode(window()).clip.presence
    assert presence is not None
    # exp(3), 1 and 1 over their sum, see `tests.streaming.bundles`.
    assert presence.brain == pytest.approx(np.exp(3) / (np.exp(3) + 2))
    assert presence.inconsistent == pytest.approx(presence.neither)
    alone = Decoder(bundle).decode(window(fmri=False)).clip.presence
    assert alone is not None
    assert alone.inconsistent > 0.9
    silent = with_manifest(bundle, tmp_path / "silent", brain=None)
    assert Decoder(silent).decode(window()).clip.presence is None


def with_manifest(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    files = {name: bundle.path / name for name in bundle.manifest.files}
    return write(folder, replace(bundle.manifest, **changes), files)


def test_a_golden_brain_that_is_off_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    golden = bundle.golden()
    golden["brain"] = golden["brain"] + np.float32(0.01)
    np.savez(tmp_path / "golden.npz", **golden)
    files = {name: bundle.path / name for name in bundle.manifest.files}
    other = write(tmp_path / "b", bundle.manifest, files | {"golden.npz": tmp_path / "golden.npz"})
    with refused(
        BundleError, "golden-difference-too-large", output="brain", difference=pytest.approx(0.01, rel=0.04)
    ):
        Decoder(other)


def test_values_that_are_no_probabilities_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    graph = onnx.load_from_string(bundle.read("encode.onnx"))
    (softmax,) = (node for node in graph.graph.node if "brain" in node.output)
    softmax.op_type = "Identity"
    onnx.save(graph, tmp_path / "encode.onnx")
    inputs = {port.name: bundle.golden()[port.name] for port in graph.graph.input}
    logits = Graph(graph.SerializeToString(), "encode.onnx")(inputs)["brain"]
    np.savez(tmp_path / "golden.npz", **(bundle.golden() | {"brain": logits}))
    files = {name: bundle.path / name for name in bundle.manifest.files}
    files |= {name: tmp_path / name for name in ("encode.onnx", "golden.npz")}
    other = write(tmp_path / "b", bundle.manifest, files)
    with refused(BundleError, "golden-probabilities-invalid", path=other.path):
        Decoder(other)


Session = tuple[ClipEmitter, list[str], list[dict[str, Any]]]


def emitted(bundle: Bundle, folder: Path) -> Session:
    """A session of a brain, then fMRI alone, then a brain again; a preview of EEG alone before each final."""
    notes = []
    with pytest.MonkeyPatch.context() as patch:
        # Nobody looks at the film here.
        patch.setattr(FilmSink, "write", lambda *_, **__: None)
        output = opened(bundle, folder)
        for k in range(14):
            output.emit(Job(window(k, "preview", fmri=False), k))
            output.emit(Job(window(k, eeg=not 2 <= k < 7), k))
            output.settle()
            notes += output.notes()
        output.close()
    lines = (folder / "out" / "clips.jsonl").read_text().splitlines()
    return output, notes, [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def session(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return emitted(bundle, tmp_path_factory.mktemp("s"))


def test_a_session_records_and_tells_what_its_finals_hold(session: Session) -> None:
    output, sentences, lines = session
    gone, back = sentences
    assert gone.startswith("No readable brain has been seen since 8.0 s of the session.")
    assert back == "A readable brain has been seen again since 28.0 s of the session."
    finals = [line for line in lines if line["revision"] == "final"]
    assert [line["brain"] > 0.5 for line in finals] == [*[True] * 2, *[False] * 5, *[True] * 7]
    assert finals[2]["brain_by"] == {"eeg": None, "fmri": pytest.approx(1 / (1 + np.exp(-3)), abs=1e-6)}
    assert min(finals[0]["brain_by"].values()) > 0.9
    previews = [line for line in lines if line["revision"] == "preview"]
    assert all(line["inconsistent"] > 0.9 > line["brain"] for line in previews)
    brain_section = output.tally.presence.section()
    assert brain_section is not None
    assert brain_section["share"] == pytest.approx(9 / 14)
    assert brain_section["gone"] == [{"from_s": 8.0, "to_s": 28.0, "kind": "neither"}]


def reported(bundle: Bundle, output: ClipEmitter) -> report.Report:
    return report.build(
        "s",
        bundle,
        output,
        Status().counters,
        12,
        simulated=True,
        ended="the requested seconds were decoded",
        memory_mb=None,
        judged=None,
    )


def test_the_report_has_it_and_shows_it(
    bundle: Bundle, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    output, _, _ = session
    session_report = reported(bundle, output)
    assert session_report["brain"] == output.tally.presence.section()
    assert session_report["runs_on"] == Decoder(bundle).runs_on
    report.show(session_report)
    assert "64% of 14   lost 1 time" in capsys.readouterr().out


def test_a_bundle_that_does_not_tell_has_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = make_bundle(tmp_path / "bundle")
    output, sentences, lines = emitted(silent, tmp_path)
    assert sentences == []
    assert {(line["brain"], line["inconsistent"]) for line in lines} == {(None, None)}
    session_report = reported(silent, output)
    assert session_report["brain"] is None
    report.show(session_report)
    assert "lost" not in capsys.readouterr().out
