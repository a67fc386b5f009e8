"""The bundle: the one directory that joins training to streaming, and the code that runs it.

::

    manifest.json      what the files are and how they fit together, and its own digest
    encode.onnx        brain -> latent, or the conditioning of the denoiser (and scores, confidence, brain)
    denoise.onnx       one denoising step, if the decoder has any
    decode_first.onnx  the first latent frame -> the first video frame
    decode_next.onnx   a later latent frame -> the video frames it holds
    stats.npz          eeg_mean, eeg_scale (channel,); fmri_mean, fmri_scale (voxel,);
                       drift_read, drift_write, drift_prior if the baseline has components
    projection.npz     voxels (voxel,), shape (3,), affine (4, 4)
    golden.npz         windows and the clips expected from them

`manifest` defines what a bundle may state, `wiring` checks how its stages fit together, and `folder`
reads and writes one. `engine` loads the graphs of a bundle (`graph`), which several sessions share. A
`session` holds the state that one stream of windows carries on, and `runner` takes one window through the
graphs: in a live session, in a replay, in the check of an export, and for the golden windows (`golden`).
"""

from rtdecode.bundle.brain import Brain
from rtdecode.bundle.folder import SHIPPED, Bundle, check_target, load, resolve, write
from rtdecode.bundle.manifest import (
    SCHEMA,
    BuiltEngine,
    ClipGeometry,
    EegInput,
    FmriInput,
    Input,
    Manifest,
    Memory,
    Output,
    Stage,
    State,
    Subject,
    from_json,
    to_json,
)

__all__ = [
    "SCHEMA",
    "SHIPPED",
    "Brain",
    "BuiltEngine",
    "Bundle",
    "ClipGeometry",
    "EegInput",
    "FmriInput",
    "Input",
    "Manifest",
    "Memory",
    "Output",
    "Stage",
    "State",
    "Subject",
    "check_target",
    "from_json",
    "load",
    "resolve",
    "to_json",
    "write",
]
