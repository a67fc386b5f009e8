"""What holds for all tests of decoding elsewhere."""

import pytest

from streaming.serve import client


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No window is given up because the machine is busy with other tests."""
    monkeypatch.setattr(client, "_PATIENT_HOPS", 1000)
