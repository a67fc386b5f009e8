"""What was found of a run, as one page that keeps and travels: what to read, pictures, and figures.

Everything is in the one HTML file, pictures included. No path and no name of a person is in it.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.disk.animation import animated_webp
from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.intervals import MIN_UNITS, ends
from train.evaluation.beside import OTHER_FILM
from train.evaluation.reading import (
    CONTROLS,
    REFERENCE_HEADINGS,
    at_chance_words,
    main_figures,
    missing,
    reading,
)
from train.evaluation.result import Evaluation, Example, Figures

# A clip is shown so wide, px, and every second frame of it.
_WIDE = 192
_FRAME_STEP = 2
# So many figures are drawn as bars at once; the rest is folded away.
_OPEN = 4
# Of a sheet that is embedded, from 0 to 100. A palette would draw edges that clips do not have.
_QUALITY = 85
_SIMULATED = "SIMULATED PARTICIPANT: no person was scanned."
_READING = (
    "Chance is what a guess scores. The other brain watches another film; where no such brain was "
    "decoded, the same brain is shifted in time. The null brain is the same decoder with the same weights "
    "and seed, and no signal. The nearest training clip is the window of the training films that is most "
    "like the decoder's clip. The constant is the training mean, always the same. The ridge is a linear "
    "decoder; its sessions stand with the films. The decoded mean colour is three numbers that it reads "
    "as well, drawn flat, and the decoded still layout is 2 x 3 colours. Told ones are the true colours, "
    "which no brain tells: what colour alone can say. The marginal knows how often each class is shown, "
    "and sees no brain. Intervals are of 95 %, over the units that are counted beside them; they are not "
    "corrected for their number."
)
_SINGLE = "All figures rest on single trials: no repetitions were averaged."
_STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f23; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.2rem; }
.read { font-size: 1.1rem; max-width: 46rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
td, th { padding: 0.15rem 0.8rem 0.15rem 0; text-align: left; vertical-align: bottom; }
tr:nth-child(even) { background: #f3f5f7; } td:nth-child(2) { font-weight: 600; }
.note { color: #b34700; font-weight: 600; } .small { color: #5a6269; font-size: 13px; max-width: 60rem; }
figure { display: inline-block; width: min(192px, 46%); margin: 0 0.7rem 0.4rem 0; }
figcaption { font-size: 13px; color: #5a6269; }
figure img { display: block; width: 100%; height: auto; } .sheet { display: block; max-width: 100%; }
.window { margin-bottom: 1.2rem; } .window p { margin: 0 0 0.2rem 0; }
.bar { display: grid; grid-template-columns: 9.5rem 1fr 3.4rem; gap: 0.5rem; align-items: center; }
.bar { font-size: 13px; }
.bars { max-width: 44rem; }
.track { position: relative; height: 0.8rem; background: #eef1f3; }
.track i { position: absolute; top: 0; bottom: 0; left: 0; background: #b8c0c8; }
.own { font-weight: 600; } .own .track i { background: #2f6fb3; }
.track b { position: absolute; top: 45%; height: 10%; min-height: 2px; background: #1b1f23; }
.track u { position: absolute; top: -2px; bottom: -2px; width: 1px; background: #b34700; }
"""


def floors(figures: Figures) -> list[dict[str, Any]]:
    """List the decoder's figures, each in one row with all that stands beside it.

    Parameters
    ----------
    figures : dict
        Metric with suffix -> {value, chance, shuffled, constant, ci95, n}.

    Returns
    -------
    list of dict
        A row for each metric that was computed of the null brain as well. If there is none, as with a judge
        that decodes no null brain, there is a row for each figure. What was not computed is None.
    """
    return [_row(name, figures) for name in main_figures(figures)]


def _row(name: str, figures: Figures) -> dict[str, Any]:
    figure = figures[name]
    low, high = figure["ci95"] or (None, None)
    other = figures.get(f"{name}{OTHER_FILM}")
    row = {
        "figure": name,
        "value": figure["value"],
        "from": low,
        "to": high,
        "chance": figure["chance"],
        "other or shifted brain": figure["shuffled"] if other is None else other["value"],
    }
    for suffix, heading in REFERENCE_HEADINGS.items():
        row[heading] = figures.get(f"{name}{suffix}", {}).get("value")
    return row | {"constant": figure.get("constant"), "n": figure["n"], **_units(figure)}


def page(judged: Evaluation) -> str:
    """Make the page."""
    tables = {name: rows for name, rows in judged.tables.items() if isinstance(rows, list) and rows}
    sentences = " ".join(reading(judged.figures))
    parts = [
        "<h1>Figures of a run</h1>",
        f'<p class="note">{_SIMULATED}</p>' if judged.simulated else "",
        f'<p class="read">{html.escape(sentences)}</p>',
        _section("What was shown, and what was decoded", _sheets(judged.pictures)),
        _section("Clips: the best, the median and the worst by identification", _clips(judged.examples)),
        _section("Figures beside their floors", _charts(judged.figures)),
        _section("Controls, which must be at chance", _table(_controls(judged.figures))),
        _section("What is missing, and why", _table(missing(judged.figures))),
        f'<p class="small">{html.escape(f"{_READING} {_trials(judged.tables)}")}</p>',
        _folded("All figures with their floors", _table(floors(judged.figures))),
        _folded("Every figure", _table(_flat(judged.figures))),
        *(_folded(name, _table(rows)) for name, rows in tables.items()),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Figures of a run</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _sheets(pictures: Mapping[str, Image.Image]) -> str:
    return "".join(_sheet(name, picture) for name, picture in pictures.items())


def _sheet(name: str, picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="webp", quality=_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="sheet" alt="{html.escape(name)}" src="data:image/webp;base64,{data}">'


def _charts(figures: Figures) -> str:
    """Draw the main figures that lie between 0 and 1 as bars, each above its floors."""
    charts = [_chart(name, figures) for name in main_figures(figures) if _is_share(figures[name])]
    folded = _folded("More figures as bars", "".join(charts[_OPEN:]))
    return "".join(charts[:_OPEN]) + folded


def _is_share(figure: dict[str, Any]) -> bool:
    """Whether a figure is a share, which has a chance level above 0 and is there."""
    chance = figure["chance"]
    return figure["value"] is not None and chance is not None and 0 < chance < 1


def _chart(name: str, figures: Figures) -> str:
    figure = figures[name]
    chance = figure["chance"]
    references = {
        heading: figures.get(f"{name}{suffix}", {}).get("value")
        for suffix, heading in REFERENCE_HEADINGS.items()
    }
    other = figures.get(f"{name}{OTHER_FILM}", {}).get("value", figure["shuffled"])
    rows = {"other or shifted brain": other, **references, "constant": figure.get("constant")}
    bars = [_bar("decoded", figure["value"], chance, figure["ci95"])]
    bars += [_bar(heading, value, chance, None) for heading, value in rows.items() if value is not None]
    within = f", 95 % {ends(figure)}" if figure["ci95"] else ""
    caption = f"{name}: {figure['value']:.3f}{within}, chance {chance:.3f}, {figure['n']} windows"
    return f'<div class="bars"><h3>{html.escape(caption)}</h3>{"".join(bars)}</div>'


def _bar(heading: str, value: float, chance: float, within: Sequence[float] | None) -> str:
    """Draw one bar from 0 to 1, with its interval and a mark at chance."""
    whisker = ""
    if within is not None:
        low, high = within
        whisker = f'<b style="left:{low:.1%};width:{high - low:.1%}"></b>'
    track = f'<i style="width:{min(max(value, 0), 1):.1%}"></i>{whisker}<u style="left:{chance:.1%}"></u>'
    kind = "bar" if within is None else "bar own"
    return (
        f'<div class="{kind}"><span>{html.escape(heading)}</span><div class="track">{track}</div>'
        f"<span>{value:.3f}</span></div>"
    )


def _controls(figures: Figures) -> list[dict[str, Any]]:
    """List the main figures of each control, and whether they are at chance."""
    rows = []
    for name in main_figures(figures):
        for suffix, heading in CONTROLS.items():
            figure = figures.get(f"{name}{suffix}")
            # What is at chance is said where that is a half.
            if figure is None or figure["value"] is None or figure["chance"] != 1 / 2:
                continue
            low, high = figure["ci95"] or (None, None)
            row = {"figure": name, "value": figure["value"], "control": heading, "from": low, "to": high}
            rows.append(row | {"verdict": at_chance_words(figure)})
    return rows


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>" if content else ""


def _trials(tables: dict[str, Any]) -> str:
    """Say whether signals were averaged before they were decoded."""
    films = [row for name, rows in tables.items() if name.split("/")[-1] == "films" for row in rows]
    averaged = [f"{row['film']} ({row['signals']})" for row in films if row.get("repeats", 1) > 1]
    if not averaged:
        return _SINGLE
    return f"No session can do so: signals were averaged before they were decoded, of {', '.join(averaged)}."


def _flat(figures: Figures) -> list[dict[str, Any]]:
    rows = []
    for name, figure in figures.items():
        low, high = figure["ci95"] or (None, None)
        row = {"figure": name, "value": figure["value"], "from": low, "to": high}
        row |= {key: value for key, value in figure.items() if key not in ("ci95", "interval", "value")}
        rows.append(row | _units(figure))
    return rows


def _units(figure: dict[str, Any]) -> dict[str, Any]:
    """Return the units of a figure's interval: their number, each of few, and why there is no interval."""
    interval = figure.get("interval")
    if interval is None:
        return {"units": None}
    is_short = interval["units"] <= MIN_UNITS and interval["values"] is not None
    values = interval["values"] if is_short else []
    listed = ", ".join(f"{value:.3f}" for value in values)
    return {"units": interval["units"], "each unit": listed, "no interval, because": interval["reason"]}


def _clips(examples: Sequence[Example]) -> str:
    return "".join(_window(example) for example in examples)


def _window(example: Example) -> str:
    figures = []
    for heading, clip in example.clips.items():
        data = base64.b64encode(animated_webp(shrunk(clip), example.fps / _FRAME_STEP)).decode()
        words = html.escape(f"{heading} of {example.words}")
        picture = f'<img alt="{words}" width="{_WIDE}" src="data:image/webp;base64,{data}">'
        figures.append(f"<figure>{picture}<figcaption>{html.escape(heading)}</figcaption></figure>")
    return f'<div class="window"><p>{html.escape(example.words)}</p>{"".join(figures)}</div>'


def shrunk(clip: Pixels) -> NDArray[np.uint8]:
    """Take every second frame of a clip (frame, row, column, 3), 192 pixels wide."""
    frames = np.asarray(clip, np.uint8)[::_FRAME_STEP]
    tall = round(_WIDE * frames.shape[1] / frames.shape[2])
    pictures = [Image.fromarray(frame).resize((_WIDE, tall), Image.Resampling.LANCZOS) for frame in frames]
    return np.stack([np.asarray(picture) for picture in pictures])


def _section(title: str, content: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{content}" if content else ""


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows out, without the columns that are empty in all of them."""
    names = dict.fromkeys(key for row in rows for key in row)
    columns = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
    if not columns:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = [f"<tr>{''.join(f'<td>{_text(row.get(name))}</td>' for name in columns)}</tr>" for row in rows]
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else html.escape(str(value))
