import io
import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.sources.formats import parrec
from streaming.sources.formats.image import IncompleteError, NotAVolumeError
from tests.refusals import refused

HEAD = """# === DATA DESCRIPTION FILE ======================================================
# CLINICAL TRYOUT             Research image export tool     V4.2
# === GENERAL INFORMATION ========================================================
.    Patient name                       :   Nobody^At^All
.    Examination name                   :   x
.    Protocol name                      :   y
.    Examination date/time              :   2026.03.01 / 12:00:00
.    Series Type                        :   Image   MRSERIES
.    Acquisition nr                     :   7
.    Reconstruction nr                  :   1
.    Scan Duration [sec]                :   10
.    Max. number of cardiac phases      :   1
.    Max. number of echoes              :   1
.    Max. number of slices/locations    :   {slices}
.    Max. number of dynamics            :   {volumes}
.    Max. number of mixes               :   1
.    Patient position                   :   Head First Supine
.    Preparation direction              :   Anterior-Posterior
.    Technique                          :   FEEPI
.    Scan resolution  (x, y)            :   6  5
.    Scan mode                          :   MS
.    Repetition time [ms]               :   {tr}
.    FOV (ap,fh,rl) [mm]                :   18 8 15
.    Water Fat shift [pixels]           :   10
.    Angulation midslice(ap,fh,rl)[degr]:   {angles}
.    Off Centre midslice(ap,fh,rl) [mm] :   {centre}
.    Flow compensation <0=no 1=yes> ?   :   0
.    Presaturation     <0=no 1=yes> ?   :   0
.    Phase encoding velocity [cm/sec]   :   0  0  0
.    MTC               <0=no 1=yes> ?   :   0
.    SPIR              <0=no 1=yes> ?   :   0
.    EPI factor        <0,1=no EPI>     :   1
.    Dynamic scan      <0=no 1=yes> ?   :   1
.    Diffusion         <0=no 1=yes> ?   :   0
.    Diffusion echo time [ms]           :   0
.    Max. number of diffusion values    :   1
.    Max. number of gradient orients    :   1
.    Number of label types   <0=no ASL> :   0
# === IMAGE INFORMATION ==========================================================
#  sl ec  dyn ph ty    idx pix scan% rec size                (re)scale
"""
END = "\n# === END OF DATA DESCRIPTION FILE ===============================================\n"
LINE = (
    "{k} 1 {t} 1 {type} 0 {place} 16 100 6 5 {shift} {scale} 0.0061 100 100 0 0 0 0 0 0 4 0.5 0 {plane} "
    "1 2 3 2.5 {echo} {began} 0 0 1 70 0 0 0 1 0 1 1 0 0 0 0 0 1\n"
)


def par(volumes=3, slices=4, kinds=(0,), slice_major=False, **fields) -> bytes:
    fields = {
        "angles": "0 0 0",
        "centre": "0 0 0",
        "tr": "2000",
        "plane": 1,
        "echo": 30,
        "step": 2.0,
    } | fields
    lines = []
    for t in range(volumes):
        for kind in kinds:
            for k in range(slices):
                place = k * volumes + t if slice_major else (t * len(kinds) + kinds.index(kind)) * slices + k
                shift, scale = (-3142, 1.5) if kind in (3, 17) else (0, 0.5 + 0.01 * k)
                lines.append(
                    LINE.format(
                        k=k + 1,
                        t=t + 1,
                        type=kind,
                        place=place,
                        shift=shift,
                        scale=scale,
                        plane=fields["plane"],
                        echo=fields["echo"],
                        began=t * fields["step"],
                    )
                )
    if slice_major:
        lines.sort(key=lambda line: int(line.split()[6]))
    head = HEAD.format(slices=slices, volumes=volumes, **fields)
    return (head + "\n" + "".join(lines) + END).replace("\n", "\r\n").encode()


def rec(images: int) -> bytes:
    return np.random.default_rng(0).integers(1, 4095, (images, 5, 6)).astype("<u2").tobytes()


def volumes_of(header: bytes, data: bytes) -> list:
    read = parrec.read_par(header)
    count = read.complete_volumes(len(data))
    return [
        parrec.read_volume(read, "scan_7.par", t, lambda offset, n: data[offset : offset + n])
        for t in range(count)
    ]


def nibabels(header: bytes, data: bytes) -> nib.parrec.PARRECImage:
    text = io.StringIO(header.decode().replace("\r\n", "\n"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = nib.parrec.PARRECHeader.from_fileobj(text, permit_truncated=True)
        return nib.parrec.PARRECImage(
            nib.parrec.PARRECArrayProxy(io.BytesIO(data), read), read.get_affine(), read
        )


@pytest.mark.parametrize("slice_major", [False, True])
@pytest.mark.parametrize("plane", [1, 2, 3])
def test_values_and_places_are_nibabels(plane, slice_major):
    header = par(plane=plane, slice_major=slice_major, angles="-11.5 4.25 20", centre="12.5 -30.25 4")
    data = rec(12)
    images = volumes_of(header, data)
    nibabel_image = nibabels(header, data)
    assert [image.number for image in images] == [0, 1, 2]
    for t, image in enumerate(images):
        np.testing.assert_allclose(image.affine, nibabel_image.affine, atol=1e-9)
        np.testing.assert_allclose(image.data, np.asanyarray(nibabel_image.dataobj)[..., t], rtol=1e-6)
        assert (image.series, image.tr_s) == (7, 2.0)
    assert (images[2].acquired - images[0].acquired).total_seconds() == 4.0


def test_magnitudes_are_taken_of_what_there_is():
    (image,) = volumes_of(par(volumes=1, kinds=(17, 16)), rec(8))
    stored = np.frombuffer(rec(8), "<u2").reshape(8, 5, 6)
    np.testing.assert_allclose(image.data[..., 0], 0.5 * stored[4].T, rtol=1e-6)
    assert (image.uid, image.number) == ("par:scan_#", 7)
    with refused(NotAVolumeError, "par-magnitude-missing"):
        volumes_of(par(kinds=(3,)), rec(12))


@pytest.mark.parametrize(
    ("tr", "echo", "tr_s"), [("2000", 30, 2.0), ("1", 0.03, 1.0), ("20", 30, None), ("0.8", 0.03, 0.8)]
)
def test_the_repetition_time_in_either_unit(tr, echo, tr_s):
    assert parrec.read_par(par(volumes=1, tr=tr, echo=echo, step=0.0)).tr_s == tr_s


def test_volumes_count_as_their_slices_come():
    read = parrec.read_par(par())
    assert [read.complete_volumes(n * 60) for n in (0, 3, 4, 7, 8, 12, 99)] == [0, 0, 1, 1, 2, 3, 3]
    mixed = parrec.read_par(par(slice_major=True))
    assert [mixed.complete_volumes(n * 60) for n in (0, 9, 10, 11, 12)] == [0, 0, 1, 2, 3]


def test_a_cut_header_is_not_taken_and_its_words_are_not_repeated():
    header = par()
    for cut in [*range(0, len(header) - 90, 29), len(header) - 80]:
        with pytest.raises((IncompleteError, NotAVolumeError)) as caught:
            parrec.read_par(header[:cut])
        assert "Nobody" not in str(caught.value)
    noisy = header.replace(b"   7\r", b"   Nobody\r").replace(b"2.5 30", b"2.5 Nobody")
    with refused(IncompleteError, "par-unreadable") as caught:
        parrec.read_par(noisy)
    assert "Nobody" not in str(caught.value)


def test_other_versions_and_kinds_are_refused():
    with refused(NotAVolumeError, "par-version-unsupported"):
        parrec.read_par(par().replace(b"V4.2", b"V3"))
    with refused(NotAVolumeError, "par-slices-mixed"):
        parrec.read_par(par().replace(b" 16 100 6 5 ", b" 12 100 6 5 "))
    with refused(NotAVolumeError, "par-geometry-unknown"):
        parrec.read_par(par(plane=9))


def test_the_real_dump_is_nibabels(data_root):
    for path in sorted((data_root / "scanner" / "pyneal_philips_parrec").rglob("*.par")):
        header = path.read_bytes()
        data = path.with_suffix(".rec").read_bytes()
        read = parrec.read_par(header)
        image = parrec.read_volume(read, path.name, 0, lambda offset, n, data=data: data[offset : offset + n])
        nibabel_image = nibabels(header, data)
        assert (image.data.shape, image.tr_s, read.complete_volumes(len(data))) == ((80, 80, 15), 1.0, 1)
        np.testing.assert_allclose(image.affine, nibabel_image.affine, atol=1e-6)
        np.testing.assert_allclose(image.data, nibabel_image.get_fdata()[..., 1], rtol=1e-5)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(40, 5000), st.integers(9, 126)), max_size=12))
def test_damaged_headers_are_refused_or_read(changes):
    header = bytearray(par())
    for offset, value in changes:
        header[offset % len(header)] = value
    try:
        for image in volumes_of(bytes(header), rec(12)):
            assert np.isfinite(image.data).all()
            assert np.isfinite(image.affine).all()
    except (IncompleteError, NotAVolumeError):
        pass
