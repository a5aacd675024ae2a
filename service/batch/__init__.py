"""Answers for every user at once, in one file: `vitrine recommend-all`, and `python -m service.batch` in a pod."""
