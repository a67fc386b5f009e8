"""What the system and FFmpeg refuse, in words: `[Errno 28]` and `averror -22` tell an operator nothing."""

import errno

_SYSTEM = {
    errno.EACCES: "no permission",
    errno.EADDRINUSE: "another program uses this address",
    errno.EADDRNOTAVAIL: "it is no address of this machine",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EEXIST: "something is there already",
    errno.EFBIG: "the file would be larger than is allowed",
    errno.EIO: "the disk or its connection fails",
    errno.EISDIR: "it is a folder, and a file was expected",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "too many files are open",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENFILE: "too many files are open",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOMEM: "not enough memory",
    errno.ENOSPC: "the disk is full",
    errno.ENOTDIR: "it is a file, and a folder was expected",
    errno.ENOTEMPTY: "the folder is not empty",
    errno.EPERM: "no permission",
    errno.EROFS: "the disk can only be read",
    errno.ESTALE: "the network drive has lost it",
}
# What the classes of PyAV's errors mean that are no errors of the system.
_FFMPEG = {
    "BSFNotFoundError": "this FFmpeg lacks a filter that it needs",
    "DecoderNotFoundError": "this FFmpeg has no decoder for it",
    "DemuxerNotFoundError": "this FFmpeg cannot read files of its kind",
    "EOFError": "it ends too early",
    "EncoderNotFoundError": "this FFmpeg has no encoder for it",
    "InvalidDataError": "it is no film, or damaged, or was not written to its end",
    "PatchWelcomeError": "this FFmpeg cannot read its kind yet",
    "StreamNotFoundError": "it holds no video",
}
# A path or an option that somebody gave, rather than a machine in trouble.
OF_PATHS = frozenset(
    (
        *(errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT),
        *(errno.ENOTDIR, errno.EPERM, errno.EROFS),
    )
)


def words(error: BaseException) -> str:
    """Say why something failed, without the system's number and without the file's name.

    Parameters
    ----------
    error : BaseException
        An error of the system or of PyAV; what another one says is returned as it is.
    """
    name = type(error).__name__
    sentence = _FFMPEG.get(name) if type(error).__module__.startswith("av.") else None
    if sentence is None:
        sentence = _SYSTEM.get(abs(getattr(error, "errno", None) or 0))
    return sentence or getattr(error, "strerror", None) or str(error) or name


def knows(error: object) -> bool:
    """Return whether an error is one of the system or of PyAV, which `words` puts into words."""
    return isinstance(error, OSError) or type(error).__module__.startswith("av.")
