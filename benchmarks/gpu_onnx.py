"""A denoising step in ONNX Runtime, which reads and writes tensors of torch where they lie."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.full_size import Denoiser
from benchmarks.full_size_export import exported
from benchmarks.gpu_rates import synchronise
from benchmarks.gpu_stages import Case
from rtdecode.errors import UsageError

# One Attention node for each attention.
_FUSED = 23
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class OnnxStep:
    """A step in ONNX Runtime.

    Parameters
    ----------
    denoiser : Denoiser
        It is left on the CPU.
    case : Case
    folder : Path
        Where the graph is written.

    Raises
    ------
    UsageError
        If ONNX Runtime has no provider for the device.
    """

    def __init__(self, denoiser: Denoiser, case: Case, folder: Path) -> None:
        provider = provider_of(case.device)
        import numpy as np
        import onnxruntime

        step = denoiser.step.cpu()
        inputs = {name: example.cpu() for name, example in denoiser.inputs.items()}
        path = exported(step, inputs, _FUSED, folder)
        self._session = onnxruntime.InferenceSession(path, providers=[provider])
        self.provider = self._session.get_providers()[0]
        if self.provider != provider:
            raise UsageError(
                "benchmark-provider-substituted",
                "{expected} was asked for, and ONNX Runtime took {actual} instead.",
                expected=provider,
                actual=self.provider,
            )
        self._names = list(inputs)
        self._device = case.device
        self._made = torch.empty(1, *case.latent, device=case.device)
        self._kind = np.float32

    def __call__(self, *tensors: Tensor) -> tuple[Tensor]:
        """Take a step; the result lies in a tensor of its own, which the next call overwrites."""
        binding = self._session.io_binding()
        inputs = [x.contiguous() for x in tensors]
        for name, tensor in zip(self._names, inputs, strict=True):
            binding.bind_input(name, **self._place(tensor))
        binding.bind_output("next", **self._place(self._made))
        # ONNX Runtime computes in a stream of its own.
        synchronise(self._device)
        self._session.run_with_iobinding(binding)
        return (self._made,)

    def _place(self, tensor: Tensor) -> dict[str, Any]:
        return {
            "device_type": self._device,
            "device_id": 0,
            "element_type": self._kind,
            "shape": tuple(tensor.shape),
            "buffer_ptr": tensor.data_ptr(),
        }


def provider_of(device: str) -> str:
    """Name the provider for a device.

    Raises
    ------
    UsageError
        If ONNX Runtime is not installed or has none.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            "benchmark-onnxruntime-missing",
            "ONNX Runtime is not installed ({error}). Install onnxruntime-gpu.",
            error=error,
        ) from error
    available = onnxruntime.get_available_providers()
    if _PROVIDERS[device] not in available:
        raise UsageError(
            "benchmark-provider-unavailable",
            "this ONNX Runtime has only {available}. Install onnxruntime-gpu in its place for {provider}.",
            available=list(available),
            provider=_PROVIDERS[device],
        )
    return _PROVIDERS[device]
