"""What holds for all tests."""

import signal

# A background job of a shell ignores Ctrl-C and hands that on; with a handler here, the commands that tests start do not.
signal.signal(signal.SIGINT, signal.default_int_handler)
