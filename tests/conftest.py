"""Signals as a terminal gives them."""

import signal

# A shell's background job ignores interrupts and one under nohup hang-ups; so would every process
# that a test starts.
for number, handler in {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_DFL,
}.items():
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)
