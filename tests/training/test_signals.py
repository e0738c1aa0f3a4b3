import signal

import pytest

from lkdn_jax.training.signals import stop_signals


def test_the_first_signal_is_told_and_the_second_acts():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's jobs ignore it
    try:
        with stop_signals() as stop:
            assert stop() is None
            signal.raise_signal(signal.SIGINT)
            assert stop() == "SIGINT"
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        with stop_signals():
            pass
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
