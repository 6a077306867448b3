"""``python -m hookmap``."""

from hookmap.cli import main

if __name__ == "__main__":
    main()
