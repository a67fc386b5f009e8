"""The film net learns, without a label, which frames belong to one clip."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tests.train.lines import CPU, EXACT, nothing
from train.parts.encoders import film_net
from train.parts.encoders.film_net import SIZE, FilmNet, FrameNet
from train.trainer import loop
from train.trainer.loader import Place


def _clips(count: int, seed: int) -> NDArray[np.uint8]:
    """Clips in which a bright square moves over ground of one colour; each has its own colour and place."""
    rng = np.random.default_rng(seed)
    clips = np.empty((count, 16, 64, 96, 3), np.uint8)
    for clip in clips:
        clip[:] = rng.integers(0, 256, 3)
        row = rng.integers(0, 40)
        column = rng.integers(0, 60)
        for n, frame in enumerate(clip):
            frame[row : row + 20, column + n : column + n + 20] = 255
    return clips


def test_pictures_are_some_frames_at_a_smaller_size() -> None:
    clips = _clips(3, 0)
    small = film_net.pictures(clips, 4)
    assert small.shape == (3, 4, 3, *SIZE)
    expected = clips[1, 8].reshape(32, 2, 48, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(small[1, 2] - expected).max() <= 0.5


def test_a_batch_depends_on_its_place_alone() -> None:
    frames = film_net.pictures(_clips(6, 0), 4)
    words = np.arange(12).reshape(6, 2, 1)
    place = Place(phase="films", size=4, seed=3, order=0, number=2)
    first = film_net.draw(frames, words, place)
    again = film_net.draw(frames, words, place)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["one"], first["other"])
    other = film_net.draw(frames, words, Place(phase="films", size=4, seed=3, order=0, number=3))
    assert not torch.equal(first["one"], other["one"])


def test_it_learns_to_tell_clips_that_it_has_not_seen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = FilmNet(embedding=16, words=3)
    frames = film_net.pictures(_clips(64, 0), 4)
    words = np.ones((64, 1, 1), np.int64)
    fresh = film_net.pictures(_clips(40, 1), 4)
    before = _found(net.frames, fresh)
    draw = partial(film_net.draw, frames, words)
    phase = replace(EXACT, losses={"frames": 1.0}, steps=60, batch=32, accumulate=1, keep_every=60)
    loop.train(net, {"films": phase}, draw, tmp_path, nothing, machine=CPU)
    assert _found(net.frames, fresh) > max(before, 0.5)


@torch.no_grad()
def test_a_text_tells_which_words_stand_together() -> None:
    torch.manual_seed(0)
    net = FilmNet(embedding=16, words=4)
    top = 1
    bottom = 2
    red = 3
    blue = 4
    red_top = net.texts(torch.tensor([[[top, red], [bottom, blue], [0, 0]]]))
    assert torch.allclose(red_top, net.texts(torch.tensor([[[bottom, blue], [top, red]]])))
    blue_top = net.texts(torch.tensor([[[top, blue], [bottom, red]]]))
    assert (red_top - blue_top).abs().max() > 0.01


def _found(net: FrameNet, frames: NDArray[np.uint8]) -> float:
    """Share of first frames whose own last frame is nearest, of those of all clips; chance is 1 in 40."""
    with torch.no_grad():
        first = net(film_net.scaled(frames[:, 0]))
        last = net(film_net.scaled(frames[:, -1]))
    return float((first @ last.T).argmax(1).eq(torch.arange(len(frames))).float().mean())
