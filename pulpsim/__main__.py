"""`python -m pulpsim`: the same as the command `pulpsim`."""

from pulpsim.cli import main

if __name__ == "__main__":
    main(prog_name="pulpsim")
