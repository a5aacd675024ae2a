"""`vitrine`, and `python -m training`, since torchrun needs a module to start."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C, also while it is still loading, leaves one line."""
    try:
        from training import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
