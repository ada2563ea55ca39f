"""`python -m trainlib`: the same as the command `trainlib`."""

from trainlib.cli import main

if __name__ == "__main__":
    main(prog_name="trainlib")
