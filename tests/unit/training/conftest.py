"""What tests of the engine have in common."""

import signal

import pytest


@pytest.fixture(autouse=True)
def _give_sigint_back():
    """Plugins that a test leaves attached keep SIGINT too."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
