"""The line of a kustomize overlay that says which release its pods run: `newTag` of the image `vitrine`, which is
the release's number and, where it is known, the digest of its image: "7@sha256:...".

`python -m training.overlays FILE` prints the number.
"""

import re
import sys
from pathlib import Path

from service.errors import VitrineError

# images: - name: vitrine ... newTag: "7"; what stands between them is kept as it is
LINE = re.compile(
    r"(?P<before>^ *- name: vitrine\n(?: +(?!- )\S.*\n)*? +newTag: *)"
    r"[\"']?(?P<number>[0-9]+)(@(?P<image>sha256:[0-9a-f]{64}))?[\"']?(?=\s|$)",
    re.M,
)


def read(overlay: Path) -> int:
    """The release that it names. Raises VitrineError."""
    return int(_line(overlay)["number"])


def write(overlay: Path, number: int, image: str = "") -> None:
    """Have it name another release; every other byte stays. image: digest of the release's image, if it is known.
    Raises VitrineError."""
    found, text = _line(overlay), overlay.read_text()
    tag = f"{number}@{image}" if image else str(number)
    aside = overlay.with_name(f".{overlay.name}.part")
    aside.write_text(f'{text[: found.start()]}{found["before"]}"{tag}"{text[found.end() :]}')
    aside.replace(overlay)


def _line(overlay: Path) -> re.Match[str]:
    try:
        found = list(LINE.finditer(overlay.read_text()))
    except OSError as error:
        raise VitrineError(f"{overlay} cannot be read ({error.strerror}); name a kustomization.yaml") from error
    if len(found) != 1:
        raise VitrineError(
            f"{overlay} must say once, under images, `- name: vitrine` with a `newTag` that is the number of a release"
        )
    return found[0]


if __name__ == "__main__":
    print(read(Path(sys.argv[1])))
