"""`python -m training` is `vitrine`; torchrun needs a module to start."""

from training.cli import main

main()
