"""`python -m control.cli`: the command line without an installed script."""

from control.cli import main

main()
