"""``python -m ccx``: the command ``ccx``, also where its script is not on the path."""

from ccx.cli import main

if __name__ == "__main__":
    main()
