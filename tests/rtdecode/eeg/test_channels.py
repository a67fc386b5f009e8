"""Labels, kinds, units and places of channels, as caps and programs write them."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from rtdecode.eeg import electrodes
from rtdecode.eeg.channels import (
    ABSENT,
    canonical,
    infer_unit,
    kind_of,
    match,
    microvolts,
    names,
    places,
)
from rtdecode.errors import GeometryError
from rtdecode.types import Montage
from tests.refusals import refused

_CAP = Path(electrodes.__file__).parents[1] / "montages" / "standard64.tsv"


def cap() -> list[str]:
    return [line.split("\t")[0] for line in _CAP.read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Fp1", "Fp1"), ("FP1", "Fp1"), ("fpz", "Fpz"), (" cz ", "Cz"), ("EEG Fp1-Ref", "Fp1"),
        ("EEG FP1-LE", "Fp1"), ("Fp1.", "Fp1"), ("Fc5.", "FC5"), ("T3", "T7"), ("T7/T3", "T7"),
        ("T8/T4", "T8"), ("P7/T5", "P7"), ("P8 (T6)", "P8"), ("AFF5H", "AFF5h"), ("EEG A2-A1", "A2"),
        ("Fp1-F7", "Fp1-F7"), ("E12", "E12"), ("EEG 001", "EEG 001"), ("HEOG", "HEOG"), ("Cz/Pz", "Cz/Pz"),
    ],
)  # fmt: skip
def test_labels_are_spelled_as_the_10_5_system_does(label: str, name: str) -> None:
    assert canonical(label) == name


@pytest.mark.parametrize(
    ("label", "declared", "kind"),
    [
        ("Fp1", "EEG", "eeg"), ("Fp1", "", "eeg"), ("Fp1", "AUX", "aux"), ("E7", "EEG", "eeg"),
        ("ECG", "EEG", "ecg"), ("EKG2", "", "ecg"), ("BIP1", "bip", "ecg"), ("BIP2", "bip", "aux"),
        ("II", "ECG", "ecg"), ("ECG", "misc", "ecg"), ("HEOG", "EEG", "eog"), ("VEOGL", "", "eog"),
        ("EOG1", "EEG", "eog"), ("IO", "EEG", "eog"), ("I1", "EEG", "eeg"), ("GSR1", "", "aux"),
        ("Resp", "EEG", "aux"), ("AUX_3", "EEG", "aux"), ("x_dir", "EEG", "aux"), ("Status", "", "stim"),
        ("TRIG", "stim", "stim"), ("CWL3", "EEG", "reference"), ("REF", "EEG", "aux"), ("Chin", "", "emg"),
        ("PACKET_COUNTER", "EEG", "aux"), ("C5", "EEG", "eeg"),
    ],
)  # fmt: skip
def test_kinds_rest_on_the_type_or_where_it_says_nothing_on_the_label(
    label: str, declared: str, kind: str
) -> None:
    assert kind_of(label, declared) == kind


def test_a_whole_cap_tells_what_one_label_does_not() -> None:
    pins = [f"{letter}{number}" for letter in "AB" for number in range(1, 33)]
    biosemi = names([*pins, "EXG1", "Status"])
    assert sorted(biosemi[:64]) == sorted(set(biosemi[:64]))
    assert (biosemi[0], biosemi[31], biosemi[32], biosemi[47], biosemi[63:]) == (
        "Fp1", "CPz", "Fpz", "Cz", ("O2", "EXG1", "Status"),
    )  # fmt: skip
    assert names(pins[:32])[1] == "AF3"
    assert names(["A1", "A2", "Fp1"]) == ("A1", "A2", "Fp1")
    assert names(["Fp1-Cz", "Fz-Cz", "O1-Cz", "ECG"]) == ("Fp1", "Fz", "O1", "ECG")
    assert names(["Fp1-F7", "F7-T3", "T3-T5"]) == ("Fp1-F7", "F7-T3", "T3-T5")


def test_units_are_read_as_words_and_as_powers_of_ten() -> None:
    spelled = {
        1.0: ("uV", "µV", "μV", "ÂµV", "microvolts", "Microvolt", "-6"),
        1e3: ("mV", "millivolts", "-3"),
        1e6: ("V", "volts", "0"),
        1e-3: ("nV", "nanovolts", "-9"),
    }
    for scale, units in spelled.items():
        for unit in units:
            assert microvolts(unit) == pytest.approx(scale), unit
    assert [microvolts(unit) for unit in ("", "degrees", "T", "7", "ohm")] == [None] * 5


def test_a_missing_unit_is_concluded_only_where_it_is_clear() -> None:
    assert [infer_unit(v) for v in (20.0, 900.0)] == [1.0, 1.0]
    assert [infer_unit(v) for v in (0.02, 0.9)] == [1e3, 1e3]
    assert [infer_unit(v) for v in (2e-5, 9e-4)] == [1e6, 1e6]
    assert [infer_unit(v) for v in (0.0, 3.0, 3e-3, 1e5, np.nan)] == [None] * 5


def test_places_are_those_of_the_shipped_cap() -> None:
    rows = [line.split("\t") for line in _CAP.read_text().splitlines()[1:]]
    table = np.array([row[1:] for row in rows], float)
    positions = places([row[0].lower() for row in rows])
    assert np.abs(positions - table).max() < 1e-5
    assert np.allclose(np.linalg.norm(np.array(list(electrodes.places().values())), axis=1), 1)


def test_directions_agree_with_a_measured_head_within_12_degrees() -> None:
    mne = pytest.importorskip("mne")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        measured = mne.channels.make_standard_montage("standard_1005").get_positions()["ch_pos"]
    positions = electrodes.places()
    assert set(measured) <= set(positions)
    points = np.array(list(measured.values()))
    # Sphere through the points, then the turn between the two heads' axes.
    design = np.c_[2 * points, np.ones(len(points))]
    centre = np.linalg.lstsq(design, (points**2).sum(1), rcond=None)[0][:3]
    directions = (points - centre) / np.linalg.norm(points - centre, axis=1, keepdims=True)
    shipped = np.array([positions[name] for name in measured])
    u, _, v = np.linalg.svd(shipped.T @ directions)
    angles = np.degrees(np.arccos(np.clip(((directions @ (u @ v).T) * shipped).sum(1), -1, 1)))
    assert angles.max() < 12
    assert np.median(angles) < 5


def test_labels_without_a_place_are_named() -> None:
    with refused(GeometryError, "channel-position-unknown", channels=re.compile("^E1, E2,")) as caught:
        places([f"E{i}" for i in range(1, 65)])
    assert "geodesic net" in str(caught.value)


def test_a_bundle_finds_its_channels_in_any_spelling_and_order() -> None:
    channels = cap()
    stream = [name.upper() for name in channels[::-1] if name != "TP10"]
    stream.insert(5, "ECG")
    montage = Montage(tuple(stream), 1000, kinds=tuple(kind_of(label) for label in stream))
    picks, absent = match(channels, montage)
    assert absent == ("TP10",)
    assert picks[channels.index("TP10")] == ABSENT
    matched = [(name, stream[pick]) for name, pick in zip(channels, picks, strict=True) if pick != ABSENT]
    assert len(matched) == 63
    assert all(name.upper() == label for name, label in matched)


def test_too_few_or_foreign_channels_are_refused_by_name() -> None:
    channels = cap()
    with refused(
        GeometryError,
        "montage-missing-channels",
        missing_channels=", ".join(channels[:9]),
        missing_count=9,
        interpolation_limit=re.compile(r"\b8\b"),
    ):
        match(channels, Montage(tuple(channels[9:]), 1000))
    assert len(match(channels, Montage(tuple(channels[8:]), 1000))[1]) == 8
    with refused(GeometryError, "montage-missing-channels", missing_count=64) as caught:
        match(channels, Montage(tuple(f"Ch{i}" for i in range(64)), 1000))
    assert "numbers are not positions" in str(caught.value)
    with refused(GeometryError, "montage-missing-channels", missing_channels="Oz"):
        match(["Fz", "Cz", "Pz", "Oz"], Montage(("Fz", "Cz", "Pz"), 500))
    with refused(GeometryError, "montage-missing-channels", missing_channels="Cz"):
        match(["Fz", "Cz"], Montage(("Fz", "Cz"), 500, kinds=("eeg", "aux")))
