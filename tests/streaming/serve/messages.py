"""Messages of a session and of a decoder, as they are sent."""

import numpy as np

from rtdecode.bundle.session import to_bytes
from streaming.message import Message
from streaming.serve import protocol
from streaming.serve.protocol import Shapes
from tests.streaming.bundles import LATENT
from tests.streaming.windows import window

SESSION = "0123456789abcdef" * 2
# The carried state of `tests.streaming.bundles.make_bundle(steps=...)`.
STATES = {"carry": np.ones((1, LATENT[0], 1, *LATENT[2:]), np.float32)}
SHAPES = Shapes(
    {
        "eeg": (4, 500),
        "eeg_mask": (500,),
        "fmri": (5, 40),
        "fmri_mask": (5,),
        "latent": (1, *LATENT),
        "condition": (5,),
    },
    (33, 64, 96, 3),
    4096,
)
WINDOW = {
    "left_s": 3.5,
    "steps": 4,
    "detail": None,
    "null": False,
    "condition": False,
    "carry_from": [6, 5],
}
DONE = {
    "number": 7,
    "steps": 4,
    "detail": None,
    "carried_from": 6,
    "confidence": 0.5,
    "presence": [0.5, 0.25, 0.25],
    "brain_by": {"eeg": 0.5, "fmri": None},
    "scores": {"face": 0.75, "house": 0.25},
    "recorded": {"rows": [1.0, -3]},
    "calls": [["encode", 0.01], ["denoise", 0.1]],
    "times_s": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    "denoising_s": 0.1,
    "note": None,
}


def states() -> np.ndarray:
    return np.frombuffer(to_bytes(STATES), np.uint8)


def a_window(number: int = 7, **changes: object) -> Message:
    message = protocol.pack_window(window(3), SESSION, number, **(WINDOW | changes))
    return Message(message.head, message.arrays | {"states": states()})


def from_session() -> dict[str, Message]:
    hello = {"kind": "hello", "release": "1.0", "session": SESSION}
    return {
        "hello": Message(hello, {}),
        "window": a_window(),
        "cancel": Message({"kind": "cancel", "session": SESSION, "number": 7}, {}),
        "bye": Message({"kind": "bye", "session": SESSION}, {}),
    }


def from_decoder() -> dict[str, Message]:
    welcome = {
        "kind": "welcome",
        "release": "1.0",
        "bundle": "phantom",
        "digest": "ab" * 16,
        "runs_on": {"encode": "the CPU"},
        "notes": ["a note."],
        "cost_s": [0.02, 0.03, 0.02],
    }
    frames = np.arange(2 * 64 * 96 * 3, dtype=np.uint8).reshape(2, 64, 96, 3)
    latent = np.random.default_rng(1).normal(size=(1, *LATENT)).astype(np.float32)
    arrays = {"latent": latent, "condition": np.zeros(5, np.float32), "states": states()}
    ends = {
        "skipped": {"number": 7, "why": "the decoder cannot keep up"},
        "failed": {"number": 7, "message": "its values are not finite"},
        "refused": {"number": 7, "message": "too many"},
        "unknown": {"number": 7},
        "closed": {"release": "1.0", "code": "serve-silent", "message": "it ended", "exit_code": 1},
    }
    return {
        "welcome": Message(welcome, {}),
        "first": Message({"kind": "first", "number": 7}, {"frames": frames[:1]}),
        "rest": Message({"kind": "rest", "number": 7}, {"frames": frames}),
        "film": Message({"kind": "film", "number": 7}, {"film": np.arange(200, dtype=np.uint8)}),
        "done": Message({"kind": "done", **DONE}, arrays),
        **{kind: Message({"kind": kind, **head}, {}) for kind, head in ends.items()},
    }
