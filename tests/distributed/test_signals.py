import os
import signal

import pytest

from virtex.distributed.signals import SIGNALS, STOPPED, stop_requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_only_recorded(number):
    with stop_requests() as request:
        assert not request
        assert request.signal is None
        os.kill(os.getpid(), number)
        assert request
        assert request.signal is number


def test_the_last_signal_is_the_one_that_is_named():
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal is signal.SIGTERM


def test_each_context_begins_without_a_request():
    with stop_requests():
        os.kill(os.getpid(), signal.SIGTERM)
    with stop_requests() as request:
        assert not request


def test_the_earlier_handlers_are_restored_after_an_error_too():
    noted = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, lambda number, _: noted.append(number))
        with pytest.raises(ZeroDivisionError), stop_requests():
            raise ZeroDivisionError
        for number in SIGNALS:
            os.kill(os.getpid(), number)
        assert noted == list(SIGNALS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_interrupt_from_the_keyboard_is_no_request():
    with stop_requests() as request:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert not request


def test_the_status_is_that_of_a_temporary_failure():
    assert STOPPED == os.EX_TEMPFAIL
