"""``python -m collectors`` is ``cryptopip``."""

from collectors.cli import main

if __name__ == "__main__":
    main()
