"""Hostile descriptions of LSL streams: read as they come, and some of them announced to the commands."""

import ctypes
import multiprocessing
import time
import unicodedata
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from xml.sax.saxutils import escape

import pylsl
import pylsl.lib

from rtdecode.eeg.channels import match
from rtdecode.errors import RtDecodeError
from streaming.sources.lsl import impedance
from streaming.sources.lsl.layout import layout
from streaming.sources.lsl.opened import OpenedStream, describe
from streaming.sources.lsl.source import ambiguity, choice, select, stream_names
from streaming.sources.lsl.trigger_streams import candidates
from tests.hostile.cases import TRACEBACK, Rng
from tests.hostile.recordings import command, small_bundle
from tests.streaming.bundles import CHANNELS

# One of so many cases announces streams on this machine and lets a command find them.
ANNOUNCED = 50
# A description may take so long to read, s of processor time.
_WITHIN = 5.0
# Streams that are announced at once.
_TOGETHER = 6
_COMMANDS = (
    ("eeg", "--seconds", "4"),
    ("eeg", "--seconds", "4", "--json"),
    ("eeg", "--seconds", "4", "--lsl", "{name}"),
    ("stream", "--lsl", "{name}", "--wait", "8", "--seconds", "2", "--bundle", "{bundle}", "--out", "{out}"),
    ("stream", "--lsl", "EEG", "--wait", "6", "--seconds", "2", "--bundle", "{bundle}", "--out", "{out}"),
    ("doctor", "--lsl", "{name}"),
)
_TEXTS = (
    "EEG",
    "[/red]",
    "[/x]",
    "[link=file:///etc/passwd]x[/link]",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b2J",
    "line\nfeed\r\ttab",
    "<script>alert(1)</script>",
    "]]>&amp;&#0;&#27;",
    "%s%n{name}{0.__class__}",
    "../../etc/passwd",
    "\u202egnp\u2066",
    "\ud7ff\ufffe\U0010ffff",
    "e\u0301" * 50,
    "x" * 5_000,
    "[" * 3_000,
    " ",
    "",
)
_LABELS = (
    "Cz",
    "cz",
    "Fp1-Ref",
    "A1",
    "E12",
    "1",
    "STI 014",
    "ECG",
    "T7/T3",
    "EEG " * 200,
    "-" * 50,
    "(" * 99,
)
_UNITS = ("microvolts", "V", "-6", "uV", "\u00c2\u00b5V", "degrees", "1e999", "volts" * 100, "nan", "-999")
_TYPES = ("EEG", "stim", "ECG", "MISC", "\u0130", "eeg\x00")
_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_IMPEDANCES = ("5 kOhm", "1e999 kOhm", "-5", "e", "." * 9, "nan ohm", "5 [/x]")
_RATES = (
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e-300",
    "1e300",
    "1e9",
    "0x10",
    "1,5",
    "",
    "250",
    "1000",
    "250.0000001",
)
_COUNTS = ("0", "1", "4", "4", "4", "64", "1000", "100000", "2147483647", "-1", "4.5", "1e3", "")
_FORMATS = ("float32", "float32", "double64", "int8", "string", "undefined", "float128")


def case(folder: Path, rng: Rng, number: int) -> list[str]:
    """Read one description as the session reads it, and return what went wrong."""
    if is_announced(number):
        return _announced(folder, rng, number)
    xml = _description(rng)
    (folder / "description.xml").write_bytes(xml)
    streams = [_parsed(xml), _parsed(_description(rng))]
    began = time.thread_time()
    _read(streams, rng)
    took = time.thread_time() - began
    return [f"reading took {took:.1f} s of processor time"] if took > _WITHIN else []


def is_announced(number: int) -> bool:
    """Return whether a case announces streams."""
    return number % ANNOUNCED == 0


def _read(streams: list[pylsl.StreamInfo], rng: Rng) -> None:
    """Read the first of some descriptions as that of the session's EEG stream."""
    info = streams[0]
    for name in (info.name(), "EEG", info.source_id()):
        matches = select(streams, name)
        ambiguity(matches, name)
        for stream in matches[:1]:
            choice(stream, name)
    stream_names(streams)
    describe(info)
    candidates(streams, info.name(), info.hostname())
    try:
        columns = layout(info)
        impedance.described_impedances(info)
        opened = OpenedStream.from_info(info, columns.montage, "name")
        OpenedStream.from_json(opened.to_json()).again(streams)
        # What is not refused can be converted.
        raw = rng.normal(0, 10, (20, info.channel_count()))
        values = columns.with_unit(1.0).ordered_as(CHANNELS).convert(raw)
        assert values.shape[1] == len(raw)
        match(CHANNELS, columns.montage)
    except RtDecodeError:
        # Refused in words, as it should be.
        return


def _announced(folder: Path, rng: Rng, number: int) -> list[str]:
    """Announce some hostile streams, run a command that looks for streams, and return what went wrong."""
    words = list(_COMMANDS[rng.integers(len(_COMMANDS))])
    context = multiprocessing.get_context("spawn")
    hearing, telling = context.Pipe()
    # In a process of their own: their buffers are not the product's.
    sender = context.Process(target=_announce, args=(rng, telling), daemon=True)
    sender.start()
    try:
        name, described = hearing.recv()
        names = {"{name}": name, "{bundle}": str(small_bundle()), "{out}": str(folder / "out")}
        words = [names.get(word, word) for word in words]
        (folder / "case.txt").write_text(f"{words}\n{described}", errors="backslashreplace")
        code, output = command(words, number)
    finally:
        sender.kill()
        sender.join()
    faults = [output[-4000:]] if TRACEBACK in output else []
    # Not on a terminal nothing is coloured: what controls one has come from outside.
    controls = sorted({c for c in output if _acts(c)})
    if controls:
        faults.append(f"{words} printed {controls}: {output[-1000:]!r}")
    if code not in (0, 1, 2, 3, 4):
        faults.append(f"{words} ended with {code}: {output[-2000:]!r}")
    return faults


def _acts(character: str) -> bool:
    """Return whether a character moves a terminal's cursor or its reading direction."""
    turns = unicodedata.bidirectional(character) in _TURNS
    return turns or (unicodedata.category(character) == "Cc" and character not in "\n\t")


def _announce(rng: Rng, telling: Connection) -> None:
    """Announce streams until this process is killed; tell the name of one, and their descriptions."""
    outlets = [outlet for outlet in (_outlet(rng) for _ in range(_TOGETHER)) if outlet is not None]
    infos = [outlet.get_info() for outlet in outlets]
    telling.send((infos[0].name() or "x", "\n".join(info.as_xml() for info in infos)))
    while True:
        for info, outlet in zip(infos, outlets, strict=True):
            # At other rates than they state; too fast for none of them.
            outlet.push_sample([1.0] * info.channel_count())
        time.sleep(0.01)


def _outlet(rng: Rng) -> pylsl.StreamOutlet | None:
    """Open a stream; None where the library does not announce one like that."""
    count = int(rng.choice([1, 4, 4, 64]))
    rate = float(rng.choice([0.0, 250.0, 500.0, 1e6, 1e-3]))
    name = _any(_TEXTS, rng) or "x"
    kind = str(rng.choice(["EEG", *_TEXTS]))
    info = pylsl.StreamInfo(name, kind, count, rate, pylsl.cf_float32, _any(_TEXTS, rng))
    channels = info.desc().append_child("channels")
    for n in range(count + int(rng.choice([0, 0, -1, 3]))):
        channel = channels.append_child("channel")
        label = CHANNELS[n] if n < len(CHANNELS) and rng.random() < 0.7 else _any(_LABELS + _TEXTS, rng)
        channel.append_child_value("label", label)
        channel.append_child_value("unit", _any(_UNITS, rng) if rng.random() < 0.3 else "microvolts")
        channel.append_child_value("type", "EEG")
    try:
        return pylsl.StreamOutlet(info, max_buffered=1)
    except RuntimeError:
        return None


def _parsed(xml: bytes) -> pylsl.StreamInfo:
    """Read a description from its XML, as the library does with what a sender answers."""
    read = pylsl.lib.lib.lsl_streaminfo_from_xml
    read.restype = ctypes.c_void_p
    return pylsl.StreamInfo(handle=read(xml))


def _description(rng: Rng) -> bytes:
    """Write the XML of a stream, some of whose parts are hostile."""

    def of(usual: str, hostile: tuple[str, ...], share: float = 0.3) -> str:
        return _any(hostile, rng) if rng.random() < share else usual

    fields = {
        "name": of("amplifier", _TEXTS),
        "type": of("EEG", _TEXTS),
        "channel_count": of("4", _COUNTS, 0.2),
        "channel_format": of("float32", _FORMATS, 0.1),
        "source_id": of("id", _TEXTS),
        "nominal_srate": of("250", _RATES),
        "version": of("1.1", _RATES, 0.05),
        "created_at": of("5.0", _RATES, 0.05),
        "uid": of("uid", _TEXTS),
        "session_id": "default",
        "hostname": of("host", _TEXTS),
    }
    fields |= {f"v{n}{what}": "0" for n in (4, 6) for what in ("address", "data_port", "service_port")}
    head = "".join(f"<{key}>{_text(value, rng)}</{key}>" for key, value in fields.items())
    described = "".join(_channels(rng))
    extra = of(
        "", ("<a>" * 3_000 + "</a>" * 3_000, f"<b>{'x' * 1_000_000}</b>", "<manufacturer>[/x]</manufacturer>")
    )
    reference = f"<reference><label>{_text(of('FCz', _TEXTS), rng)}</label></reference>"
    desc = f"{extra}<channels>{described}</channels>{reference}"
    xml = f'<?xml version="1.0"?><info>{head}<desc>{desc}</desc></info>'
    return _changed(xml.encode(errors="surrogatepass"), rng)


def _channels(rng: Rng) -> Iterator[str]:
    count = int(
        rng.choice([0, 3, 4, 4, 4, 4, 5, 64, 5_000], p=[0.05, 0.1, 0.15, 0.15, 0.15, 0.15, 0.1, 0.1, 0.05])
    )
    hostile = float(rng.choice([0.0, 0.3, 1.0]))
    for n in range(count):
        label = CHANNELS[n] if n < len(CHANNELS) else f"E{n}"
        values = {"label": label, "unit": "microvolts", "type": "EEG"}
        if rng.random() < hostile:
            values["label"] = _any(_LABELS + _TEXTS, rng)
        if rng.random() < hostile:
            values["unit"] = _any(_UNITS + _TEXTS, rng)
        if rng.random() < hostile:
            values["type"] = _any(_TYPES + _TEXTS, rng)
        if rng.random() < hostile:
            values["impedance"] = str(
                rng.choice(("5 kOhm", "1e999 kOhm", "-5", "e", "." * 9, "nan ohm", "5 [/x]"))
            )
        fields = "".join(f"<{key}>{_text(value, rng)}</{key}>" for key, value in values.items())
        yield f"<channel>{fields}</channel>"


def _any(texts: Sequence[str], rng: Rng) -> str:
    """Choose a text; `Generator.choice` would make an array of all of them, however long."""
    return texts[rng.integers(len(texts))]


def _text(value: str, rng: Rng) -> str:
    """Write a text for XML; now and then as it is, which may be none."""
    return value if rng.random() < 0.02 else escape(value)


def _changed(xml: bytes, rng: Rng) -> bytes:
    """Damage one description in five: bytes that are no UTF-8, a cut, a stretch that stands there twice."""
    draw = rng.random()
    place = int(rng.integers(len(xml)))
    if draw < 0.1:
        data = bytearray(xml)
        for _ in range(3):
            data[int(rng.integers(min(len(xml), 2_000)))] = int(rng.integers(1, 256))
        return bytes(data)
    if draw < 0.15:
        return xml[:place]
    if draw < 0.2:
        return xml[:place] + xml[place // 2 : place // 2 + 2_000] + xml[place:]
    return xml
