"""Which codec: closed form, closed form with a trained residual, or trained end to end.

Every candidate has the same latent layout (16 channels, 8 x 8 pixels, 4 frames, frame 0 alone), the same
training films and at most 2 minutes of one core's time. Judged on fresh films of the simulator and on
real ones, on true latents and on latents with noise. Writes ``codec.json``::

    RTDECODE_DATA=... python -m benchmarks.codec
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from benchmarks.codec_nets import CHANNELS, ConvEncoder, NetDecoder, onnx_speed, train_net
from rtdecode.phantom.film.film import FPS, HEIGHT, WIDTH, Film
from train.closed_form import patch_codec as patch
from train.data.phantom import film_clips
from train.models.compact.codec import ClipDecoder, fit_decoder, patch_decoder

WIDTH_NET = 64
BLOCKS = 2
TRAINING = range(100, 103)
JUDGING = (1900,)
SECONDS = 600.0
BUDGET_S = 120.0
NOISES = (0.0, 0.2)
FRAMES = 33
HOP = 8
_JUDGED = 60
_SIGMA = 1.5
_REACH = 5
_OUT = Path(__file__).with_name("codec.json")
Clips = NDArray[np.uint8]
Latents = NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """A codec to judge: how clips become latents, and the decoder with what it cost."""

    name: str
    encode: Callable[[Clips], Latents]
    decoder: ClipDecoder | NetDecoder
    fit_s: float


def main() -> None:
    """Fit and judge all candidates."""
    torch.set_num_threads(1)
    clips = phantom_clips(TRAINING, ("grid", "free"))
    films = {cuts: phantom_clips(JUDGING, (cuts,))[:_JUDGED] for cuts in ("grid", "free")}
    films |= {path.stem: real_clips(path) for path in sorted(_video().glob("*.mp4"))}
    rows = {found.name: _judged(found, films) for found in candidates(clips)}
    truth = {name: round(blockiness(_bright(found)), 2) for name, found in films.items()}
    counts = {name: len(found) for name, found in films.items()}
    told = {"training_clips": len(clips), "clips": counts, "true_blockiness": truth, "candidates": rows}
    _OUT.write_text(json.dumps(told, indent=1) + "\n")
    show(told)


def _video() -> Path:
    root = os.environ.get("RTDECODE_DATA")
    if not root:
        raise SystemExit("RTDECODE_DATA is not set: name the folder that holds video/ with the real films.")
    return Path(root) / "video"


def phantom_clips(seeds: Any, cuts: tuple[str, ...]) -> Clips:
    """Clips of the simulator's films."""
    return np.concatenate([film_clips(Film(SECONDS, seed, cut)) for seed in seeds for cut in cuts])


def real_clips(path: Path) -> Clips:
    """Stretches of 33 frames of a film, one a second, at 8 fps, cropped to 3:2 and reduced to 64 x 96."""
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or FPS)
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    width, height = pictures[0].size
    across = min(width, height * WIDTH / HEIGHT)
    down = across * HEIGHT / WIDTH
    box = ((width - across) / 2, (height - down) / 2, (width + across) / 2, (height + down) / 2)
    # A film of 4 s lends its last picture to the instant at its end.
    at = [min(round(k / FPS * rate), len(pictures) - 1) for k in range(round(len(pictures) / rate * FPS) + 1)]
    size = (WIDTH, HEIGHT)
    how = Image.Resampling.BOX
    frames = np.stack([np.asarray(pictures[i].resize(size, how, box=box)) for i in at])
    return np.stack([frames[k : k + FRAMES] for k in range(0, len(frames) - FRAMES + 1, HOP)])


def candidates(clips: Clips) -> Iterator[Candidate]:
    """Fit the candidates one by one."""
    start = time.process_time()
    codec = patch.fit_codec(clips, CHANNELS)
    latent = patch.encode(codec, clips)
    spent = time.process_time() - start

    def encode(found: Clips) -> Latents:
        return patch.encode(codec, found)

    alone = patch_decoder(codec)
    yield Candidate("patch", encode, alone, spent)
    lapped = alone
    for noise in (0.0, 0.05, 0.1):
        start = time.process_time()
        lapped = fit_decoder(latent, clips, noise)
        yield Candidate(f"lapped, {noise}", encode, lapped, spent + time.process_time() - start)
    scale = torch.from_numpy(latent.std((0, 2, 3, 4)))
    torch.manual_seed(0)
    for name, base in (("patch + net", alone), ("lapped, 0.1 + net", lapped)):
        net = NetDecoder(base, scale, WIDTH_NET, BLOCKS)
        yield Candidate(name, encode, net, spent + train_net(net, None, clips, latent, BUDGET_S))
    coder = ConvEncoder(CHANNELS, WIDTH_NET, BLOCKS)
    net = NetDecoder(None, torch.ones(CHANNELS), WIDTH_NET, BLOCKS)
    spent = train_net(net, coder, clips, None, BUDGET_S)
    yield Candidate("convolutional", coder.encode, net, spent)


def _judged(found: Candidate, films: dict[str, Clips]) -> dict[str, Any]:
    latents = {name: found.encode(clips) for name, clips in films.items()}
    scale = latents["grid"].std((0, 2, 3, 4))[:, None, None, None]
    row: dict[str, Any] = {
        "fit_cpu_s": round(found.fit_s),
        "parameters": sum(p.numel() for p in found.decoder.parameters()),
    }
    row |= onnx_speed(found.decoder, latents["grid"][0])
    for noise in NOISES:
        rng = np.random.default_rng(0)
        figures = {}
        for name, clips in films.items():
            extra = rng.standard_normal(latents[name].shape, np.float32)
            made = decode(found.decoder, latents[name] + noise * scale * extra)
            figures[name] = measure(made, _bright(clips))
        row[f"noise {noise}"] = figures
    Console(width=160).print(found.name, row)
    return row


def _bright(clips: Clips) -> Latents:
    return (clips / 255).astype(np.float32)


def decode(decoder: ClipDecoder | NetDecoder, latent: Latents) -> Latents:
    """Decode clips a few at a time, (clip, frame, row, column, 3)."""
    parts = []
    with torch.inference_mode():
        for k in range(0, len(latent), HOP):
            parts.append(decoder(torch.from_numpy(np.ascontiguousarray(latent[k : k + HOP]))).numpy())
    return np.concatenate(parts)


def measure(made: Latents, truth: Latents) -> dict[str, float]:
    """Mean over clips of PSNR (dB) and SSIM, and the blockiness."""
    error = np.square(made - truth).mean((1, 2, 3, 4), dtype=np.float64)
    similar = float(np.mean([ssim(a, b) for a, b in zip(made, truth, strict=True)]))
    psnr = float(np.mean(-10 * np.log10(error)))
    return {"psnr": round(psnr, 2), "ssim": round(similar, 3), "blockiness": round(blockiness(made), 2)}


def ssim(made: Latents, truth: Latents) -> float:
    """Structural similarity of two clips' luminance (Wang et al. 2004, IEEE TIP 13, 600), frame by frame."""
    a, b = (clip @ np.array([0.299, 0.587, 0.114], np.float32) for clip in (made, truth))
    ma, mb, aa, bb, ab = (_blur(x) for x in (a, b, a * a, b * b, a * b))
    c1 = 0.01**2
    c2 = 0.03**2
    similar = (2 * ma * mb + c1) * (2 * (ab - ma * mb) + c2)
    return float((similar / ((ma**2 + mb**2 + c1) * (aa - ma**2 + bb - mb**2 + c2))).mean())


def _blur(x: Latents) -> Latents:
    return np.asarray(gaussian_filter(x, (0, _SIGMA, _SIGMA), radius=(0, _REACH, _REACH)), np.float32)


def blockiness(clips: Latents) -> float:
    """Mean difference of neighbouring pixels across patches' borders over that inside patches; 1 is none."""
    across = []
    inside = []
    for axis in (2, 3):
        others = tuple(k for k in range(clips.ndim) if k != axis)
        step = np.abs(np.diff(clips, axis=axis)).mean(others)
        border = np.arange(1, clips.shape[axis]) % patch.SIDE == 0
        across.append(step[border])
        inside.append(step[~border])
    return float(np.concatenate(across).mean() / np.concatenate(inside).mean())


def show(told: dict[str, Any]) -> None:
    """Print the figures, a table for each level of noise."""
    for noise in NOISES:
        table = Table(title=f"latents with noise of {noise} of their spread: PSNR, SSIM, blockiness")
        names = list(told["clips"])
        for column in (
            "codec",
            "fit s",
            "clip ms",
            "KiB",
            *(f"{n} ({told['true_blockiness'][n]})" for n in names),
        ):
            table.add_column(column)
        for name, row in told["candidates"].items():
            figures = [" ".join(str(x) for x in row[f"noise {noise}"][n].values()) for n in names]
            table.add_row(name, str(row["fit_cpu_s"]), str(row["clip_ms"]), str(row["kib"]), *figures)
        Console(width=160).print(table)


if __name__ == "__main__":
    main()
