"""Ask the NVIDIA driver which GPU there is, without any package: `find`.

The driver's library is called directly, because the packages that could tell are large and are not needed to
decode on a CPU. Functions and numbers are those of the CUDA Driver API (initialisation, device management).
"""

import ctypes
from dataclasses import dataclass

from rtdecode.errors import RtDecodeError

# The driver, where the system looks for libraries.
_LIBRARY = "libcuda.so.1"
_SUCCESS = 0
# CUdevice_attribute: the two numbers of the compute capability.
_MAJOR = 75
_MINOR = 76
_NAME_BYTES = 256


class NoGpuError(RtDecodeError):
    """There is no GPU that can be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU of this machine.

    Attributes
    ----------
    name : str
        Name of the model, as the driver gives it.
    capability : str
        Its compute capability, such as ``8.0``.
    cuda : str
        The newest CUDA version that the installed driver supports, such as ``12.4``.
    """

    name: str
    capability: str
    cuda: str


def find(library: str = _LIBRARY) -> Gpu:
    """Ask the driver for the first GPU.

    Parameters
    ----------
    library : str
        Name or path of the driver's library.

    Raises
    ------
    NoGpuError
        If there is no driver, or it has no GPU to offer.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        raise NoGpuError("gpu-driver-missing", "there is no NVIDIA driver ({error})", error=error) from error
    version = ctypes.c_int()
    _ask(driver, "cuDriverGetVersion", ctypes.byref(version))
    # 12040 is CUDA 12.4.
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    _ask(driver, "cuInit", 0)
    device = ctypes.c_int()
    _ask(driver, "cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _ask(driver, "cuDeviceGetName", name, _NAME_BYTES, device)
    numbers: list[int] = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        _ask(driver, "cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        numbers.append(number.value)
    return Gpu(name.value.decode(), f"{numbers[0]}.{numbers[1]}", cuda)


def _ask(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    status = getattr(driver, function)(*arguments)
    if status == _SUCCESS:
        return
    words = ctypes.c_char_p()
    has_message = driver.cuGetErrorString(status, ctypes.byref(words)) == _SUCCESS and words.value is not None
    reason = words.value.decode() if has_message and words.value is not None else "no further words"
    raise NoGpuError(
        "gpu-driver-failed",
        "the NVIDIA driver offers no GPU ({function}: error {status}, {description})",
        function=function,
        status=status,
        description=reason,
    )
