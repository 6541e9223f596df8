"""The command ``ccx``, also as ``python -m ccx``."""

import signal

from ccx.stopping import stop_at_once


def main() -> None:
    """Run the command line on ``sys.argv``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop_at_once)
    from ccx.cli import main as run  # noqa: PLC0415 - takes a second, in which Ctrl-C should end it, too

    run()


if __name__ == "__main__":
    main()
