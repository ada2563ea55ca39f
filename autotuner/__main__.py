"""`python -m autotuner`: the same as the command `autotuner`."""

from autotuner.cli import main

if __name__ == "__main__":
    main(prog_name="autotuner")
