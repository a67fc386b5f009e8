"""Say what runs the graphs of a bundle on this machine, and how its golden window came out.

A part of ``rtdecode doctor``: `runtime` judges the installation of ONNX Runtime, `judge` what a decoder found
when it was made.
"""

from rtdecode import installing
from rtdecode.bundle import Bundle, engine, providers
from rtdecode.errors import RtDecodeError
from streaming.checks.finding import Finding
from streaming.decode.decoder import Decoder


def runtime() -> Finding:
    """Judge which ONNX Runtime is installed, and whether two packages of it are."""
    try:
        names = providers.available()
    except RtDecodeError as error:
        return Finding("graphs", "bad", str(error))
    clash = providers.clash()
    if clash is not None:
        return Finding("graphs", "bad", clash, "decode with one of the packages alone")
    found = f"ONNX Runtime {providers.runtime().__version__}"
    if names == [providers.CPU]:
        return Finding("graphs", "ok", f"{found} on the CPU", f"on a GPU: {installing.command('gpu')}")
    return Finding("graphs", "ok", f"{found} with {', '.join(names)}")


def judge(bundle: Bundle, decoder: Decoder) -> list[Finding]:
    """Say what runs each stage, how far the golden window is off, and whether a GPU has ever run the graphs.

    Parameters
    ----------
    bundle : Bundle
    decoder : Decoder
        Of that bundle. It decoded the golden window when it was made.
    """
    manifest = bundle.manifest
    reads = " + ".join(manifest.modalities)
    far = ", ".join(f"{name} {error:.2g}" for name, error in decoder.differences.items())
    found = f"{manifest.name} {bundle.digest} reads {reads}; its golden window agrees (off by {far})"
    status = manifest.parity.get("status")
    if status is not None:
        found += f"; parity of its export: {status}"
    state = "note" if decoder.notes else "ok"
    engines = Finding("engines", state, " ".join([f"{engine.places(decoder.runs_on)}.", *decoder.notes]))
    return [Finding("bundle", "ok", found), engines, _of_gpu(bundle)]


def _of_gpu(bundle: Bundle) -> Finding:
    gpu = bundle.manifest.gpu
    if gpu is None:
        found = f"{bundle.manifest.name}: not run on a GPU. Its graphs and engines were checked on CPUs alone"
        return Finding("GPU", "note", found)
    return Finding("GPU", "ok", f"{bundle.manifest.name} was run on {gpu}")
