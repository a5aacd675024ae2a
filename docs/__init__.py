"""The project's pages, and the two programs that write what follows from the code: generate.py and picture.py."""
