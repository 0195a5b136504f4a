"""Run imgclf as `python -m imgclf`."""

from imgclf.cli.app import main

if __name__ == "__main__":
    main()
