"""Series that are called after something that they are not, and the option that lets names pass."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rtdecode.cli import app
from rtdecode.phantom.files.enhanced import enhanced_bytes
from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import NotAVolumeError
from tests.dicoms import changed
from tests.refusals import refused

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
STARTED = datetime(2026, 3, 4, 10)
WORDS = (
    "ep2d_bold_moco",
    "task_SBRef_bold",
    "fmap_task",
    "rest_physiolog",
    "bold_field_map_shim",
    "topup_bold",
)


def mosaic(index: int = 0, **header) -> bytes:
    volume = np.random.default_rng(index).integers(1, 3000, (8, 6, 5)).astype(np.int16)
    plain = mosaic_bytes(
        volume, AFFINE, 2.0, index, 7, STARTED + timedelta(seconds=2 * index), 1.0, "1.2.3.4"
    )
    return changed(plain, **header)


def called(name: str, **header) -> dict:
    """What a scanner writes into a series whose protocol an operator gave this name."""
    return {"SeriesDescription": name, "ProtocolName": name, **header}


@pytest.mark.parametrize("name", WORDS)
def test_an_operators_words_do_not_outrank_the_header(name):
    assert isinstance(read_dicom(mosaic(**called(name))), list)
    enhanced = enhanced_bytes(
        np.full((4, 4, 3), 7, np.int16), AFFINE, 2.0, 0, 7, STARTED, 1.0, "1.2.3.4"
    )  # fmt: skip
    assert isinstance(read_dicom(changed(enhanced, **called(name))), list)
    # Where the series' name was removed, the protocol's is the operator's just as well.
    assert isinstance(read_dicom(mosaic(SeriesDescription=None, ProtocolName=name)), list)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (called("ep2d_bold_moco", ImageType=["ORIGINAL", "PRIMARY", "M", "MOCO"]), "moco-unexpected"),
        (called("ep2d_bold_moco", ImageType=["DERIVED", "PRIMARY", "M", "MOSAIC"]), "moco-unexpected"),
        (called("SBRef", ImageComments="Single-band reference"), "not-functional"),
        (called("fmap_AP", ScanningSequence=["SE", "EP"], SequenceName="*epse2d1_92"), "not-functional"),
        (called("fmap", ScanningSequence="GR", SequenceName="fl2d2"), "not-functional"),
        (called("rest_physiolog", ImageType=["ORIGINAL", "PRIMARY", "RAWDATA"]), "physiology-log"),
        # The scanner's own suffixes.
        ({"SeriesDescription": "bold_SBRef", "ProtocolName": "bold"}, "not-functional"),
        ({"SeriesDescription": "bold_moco_SBRef", "ProtocolName": "bold_moco"}, "not-functional"),
        ({"SeriesDescription": "MoCoSeries", "ProtocolName": "ep2d_bold_moco"}, "moco-unexpected"),
        ({"SeriesDescription": "bold_moco_MoCo", "ProtocolName": "bold_moco"}, "moco-unexpected"),
    ],
)  # fmt: skip
def test_names_count_where_the_header_says_nothing_else(header, code):
    with refused(NotAVolumeError, f"dicom-{code}"):
        read_dicom(mosaic(**header))


@pytest.mark.parametrize(
    ("header", "pattern"),
    [
        ({"SeriesDescription": "bold_SBRef"}, "sbref"),
        ({"SeriesDescription": "bold_SBRef"}, "b?ld*ref"),
        ({"SeriesDescription": "MoCoSeries"}, "moco"),
        ({"SeriesDescription": "run1_PhysioLog"}, "run1"),
        ({"SeriesDescription": "gre_field_mapping"}, "field_mapping"),
        (called("scout", ScanningSequence="GR", SequenceName="fl2d1"), "scout"),
        (called("fmap_AP", ScanningSequence=["SE", "EP"], SequenceName="*epse2d1_92"), "fmap"),
    ],
)
def test_what_its_name_alone_leaves_out_can_be_let_in_and_says_so(header, pattern):
    data = mosaic(**header)
    with pytest.raises(NotAVolumeError) as caught:
        read_dicom(data)
    word = str(caught.value.values["advice"]).split("--include ")[1].split()[0]
    for include in (pattern, word):
        assert isinstance(read_dicom(data, include=include), list)
    with pytest.raises(NotAVolumeError):
        read_dicom(data, include="something else")


@pytest.mark.parametrize(
    "header",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "MOSAIC"], "SeriesDescription": "bold_SBRef"},
        {"ImageComments": "Single-band reference", "SeriesDescription": "bold_SBRef"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOCO", "MOSAIC"], "SeriesDescription": "bold_SBRef"},
    ],
)
def test_what_the_header_speaks_against_is_not_let_in(header):
    with pytest.raises(NotAVolumeError) as caught:
        read_dicom(mosaic(**header), include="*")
    assert caught.value.values.get("advice", "") == ""


def test_the_option_reaches_the_files_from_the_command_line(tmp_path: Path):
    for n in range(3):
        (tmp_path / f"{n}.dcm").write_bytes(mosaic(n, SeriesDescription="bold_SBRef"))

    def listed(*options: str) -> dict:
        arguments = ["volumes", str(tmp_path), "--once", "--json", *options]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    without = listed()
    assert without["volumes"] == 0
    assert all("--include SBRef" in entry["reason"] for entry in without["ignored"])
    assert listed("--include", "SBRef") == {"ignored": [], "volumes": 3}
