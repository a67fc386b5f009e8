"""EEG on the page: packed here into few bytes, and drawn by the browser on one canvas.

A drawing by URL twice a second would cost this process a text of some 100 kB each time, and the browser a new
picture.
"""

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.signal.intervals import true_runs
from streaming.page.drawing import BAD, HOLE, LINE, TEXT

# Samples that become one pair of points.
_BIN = 4
# Standard deviations from the middle of one trace to the middle of the next.
_SPREAD = 4.0
# Points are bytes about this value.
_MIDDLE = 128
_AMPLITUDE = 127

# Asks for the newest traces and draws them. An answer that does not come is passed over, as the next one is
# asked for half a second later. Only interpolated channels are named: sixty names in a third of a screen
# cannot be read.
SCRIPT = f"""
window.rtTraces = async (tick) => {{
  const canvas = document.querySelector('.rt-traces');
  const answer = await fetch('traces?' + tick).catch(() => null);
  if (!canvas || !answer || !answer.ok) return;
  const traces = await answer.json();
  const points = Uint8Array.from(atob(traces.points), (one) => one.charCodeAt(0));
  const width = Math.round(canvas.clientWidth * window.devicePixelRatio);
  const height = Math.round(canvas.clientHeight * window.devicePixelRatio);
  if (canvas.width !== width || canvas.height !== height) {{
    canvas.width = width;
    canvas.height = height;
  }}
  const pen = canvas.getContext('2d');
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = '{HOLE}';
  for (const [start, stop] of traces.holes) {{
    pen.fillRect(start * width, 0, Math.max((stop - start) * width, 1), height);
  }}
  const rows = traces.bad.length;
  if (!rows) {{
    pen.font = 14 * window.devicePixelRatio + 'px sans-serif';
    pen.fillStyle = '{TEXT}';
    pen.fillText(traces.absent, width / 2, height / 2);
  }}
  const count = rows ? points.length / rows : 0;
  const step = height / Math.max(rows, 1);
  pen.lineWidth = window.devicePixelRatio;
  pen.font = Math.max(step, 11 * window.devicePixelRatio) + 'px sans-serif';
  for (let row = 0; row < rows; row++) {{
    const middle = (row + 0.5) * step;
    pen.strokeStyle = traces.bad[row] ? '{BAD}' : '{LINE}';
    pen.beginPath();
    for (const [start, stop] of traces.held) {{
      for (let at = start; at < stop; at++) {{
        const y = middle - (points[row * count + at] - {_MIDDLE}) / {_AMPLITUDE} * step;
        const x = (at + 0.5) / count * width;
        at === start ? pen.moveTo(x, y) : pen.lineTo(x, y);
      }}
    }}
    pen.stroke();
    if (traces.bad[row]) {{
      pen.fillStyle = '{BAD}';
      pen.fillText(traces.bad[row], 2, middle + step / 2);
    }}
  }}
}};
"""


def packed(
    values: NDArray[np.floating],
    usable: NDArray[np.bool_],
    names: Sequence[str],
    bad: set[str],
    absent: str = "",
) -> str:
    """Pack EEG for the canvas, one row a channel.

    Parameters
    ----------
    values : (channel, sample)
        z-scored.
    usable : (sample,) bool
        Samples that are usable; where none is, a band says that there is a gap.
    names : sequence of str
        The channels' names.
    bad : set of str
        Channels that are interpolated; they are drawn in another colour.
    absent : str
        What is said where there is no channel.

    Returns
    -------
    str
        JSON: ``points``, the bytes of all rows in base64, 128 in the middle of a row and 127 from there to
        the middle of the next; ``held``, the spans of points that are usable; ``holes``, the spans that are
        not, as shares of the width; ``bad``, for each row its channel's name if it is interpolated, else
        empty; ``absent``.
    """
    points, usable_points = _extremes(np.clip(values / _SPREAD, -1, 1), usable)
    coded = np.rint(_MIDDLE + _AMPLITUDE * points).astype(np.uint8)
    samples = max(values.shape[1], 1)
    return strict_json.dumps(
        {
            "points": base64.b64encode(coded.tobytes()).decode(),
            "held": true_runs(usable_points),
            "holes": [[start / samples, stop / samples] for start, stop in true_runs(~usable)],
            "bad": [name if name in bad else "" for name in names[: len(values)]],
            "absent": absent,
        }
    )


def _extremes(
    values: NDArray[np.floating], usable: NDArray[np.bool_]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Reduce samples to the smallest and the largest of every few, so that no spike is lost.

    Returns
    -------
    extremes : (channel, point)
    usable : (point,) bool
        Whether all samples of a point are usable.
    """
    bins = values.shape[1] // _BIN
    cut = values[:, : bins * _BIN].reshape(len(values), bins, _BIN)
    pairs = np.stack([cut.min(2), cut.max(2)], 2).reshape(len(values), 2 * bins)
    usable_points = np.repeat(usable[: bins * _BIN].reshape(bins, _BIN).all(1), 2)
    return pairs, usable_points
