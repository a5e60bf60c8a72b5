"""`python -m jstar`: the command `jstar`, where no script of that name is on the path."""

from jstar.cli import main

main()
