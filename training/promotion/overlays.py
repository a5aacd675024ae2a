"""The lines of a kustomize overlay that say which release its pods run.

    images:
      - name: vitrine
        newName: example.com/shop/vitrine
        newTag: "7-1a2b3c4d@sha256:..."

The number of the release, the digest of what its image was made of, and the digest of the image itself. The lines of a
canary, `vitrine-candidate`, and of its component stand behind `# canary: ` while there is none. Where the release is
pulled in place of being in the image, a patch of `/data/RELEASE` names it. Where a Job builds its plan, or answers
every user, a patch of the Job's name does.

`python -m training.promotion.overlays FILE` prints the number.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import VitrineError
from service.files import write_text

RELEASE, CANDIDATE = "vitrine", "vitrine-candidate"
MARK = "# canary: "
TAG = r"(?P<number>[0-9]+)(-[0-9a-f]+)?"
DIGEST = r"sha256:[0-9a-f]{64}"
VALUE = re.compile(rf"[\"']?{TAG}(@{DIGEST})?[\"']?(?=\s|$)")
FIELD = re.compile(r"(?P<before> *)(?P<name>newName|newTag): *(?P<rest>.*)")
COMPONENT = re.compile(r" *(# canary: )?- \S*components/canary/?\s*(#.*)?\s*")
PULLED = re.compile(r"(?P<before>path: /data/RELEASE\n *value: *[\"'])(?P<number>[0-9]+)")
JOB = re.compile(r"(?P<before>path: /metadata/name\n *value: *(build-plan|recommend-all)-)(?P<number>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Image:
    """Where a cluster pulls the image of a release from. tag: 7, or 7-1a2b3c4d; digest: sha256:..."""

    name: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> "Image":
        """example.com/shop/vitrine:7-1a2b3c4d@sha256:... Raises VitrineError."""
        found = re.fullmatch(rf"(?P<name>[a-z0-9][a-z0-9._:/-]*):(?P<tag>{TAG})@(?P<digest>{DIGEST})", text)
        if found is None:
            raise VitrineError(
                f"--image {text}: expected NAME:TAG@DIGEST, as in example.com/shop/vitrine:7-1a2b3c4d@sha256:..., with "
                "a tag that begins with the number of the release; make image-reference prints it after make push"
            )
        return cls(found["name"], found["tag"], found["digest"])

    @property
    def number(self) -> int:
        """Of its release."""
        return int(self.tag.partition("-")[0])

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}@{self.digest}"


def read(overlay: Path) -> int:
    """The release that it names. Raises VitrineError."""
    lines = _lines(overlay)
    pulled = PULLED.search("".join(lines))
    return int(pulled["number"]) if pulled else _number(overlay, lines, RELEASE)


def needs_image(overlay: Path) -> bool:
    """Whether the release comes in the image, and not from the registry. Raises VitrineError."""
    return PULLED.search("".join(_lines(overlay))) is None


def read_candidate(overlay: Path) -> int | None:
    """The release that it has as a canary, None where that is behind its mark. Raises VitrineError."""
    lines = _lines(overlay)
    if lines[_entry(overlay, lines, CANDIDATE)][0].lstrip().startswith(MARK):
        return None
    return _number(overlay, lines, CANDIDATE)


def require_place_for_candidate(overlay: Path) -> None:
    """Raises VitrineError where a canary could not be written."""
    _with_candidate(overlay, _lines(overlay), None)


def write(overlay: Path, number: int, image: Image | None = None) -> None:
    """Have it name another release, from this image; None: by its number alone, from wherever it is. A canary of the
    same number is none any more. Every other byte stays. Raises VitrineError."""
    read(overlay)
    text = "".join(_lines(overlay))
    for pattern in (PULLED, JOB):
        text = pattern.sub(rf"\g<before>{number}", text)
    lines = text.splitlines(keepends=True)
    if needs_image(overlay):
        place = _entry(overlay, lines, RELEASE)
        lines[place] = _named(lines[place], str(number) if image is None else f"{image.tag}@{image.digest}", image)
    # not every overlay has a place for a canary
    if any(f"- name: {CANDIDATE}" in line for line in lines) and read_candidate(overlay) == number:
        lines = _with_candidate(overlay, lines, None)
    _replace(overlay, lines)


def write_candidate(overlay: Path, image: Image | None) -> None:
    """Have it run this image as a canary beside the release, or none. Raises VitrineError."""
    _replace(overlay, _with_candidate(overlay, _lines(overlay), image))


def _with_candidate(overlay: Path, lines: Sequence[str], image: Image | None) -> list[str]:
    made = list(lines)
    place = _entry(overlay, made, CANDIDATE)
    entry = [line.replace(MARK, "") for line in made[place]]
    if image is None:
        made[place] = [_marked(line, _indent(entry[0])) for line in entry]
    else:
        made[place] = _named(entry, f"{image.tag}@{image.digest}", image)
    components = [at for at, line in enumerate(made) if COMPONENT.fullmatch(line)]
    if len(components) != 1:
        raise VitrineError(
            f"{overlay} must have the component canary in one line, `- ../../components/canary`, behind `{MARK}` while "
            "there is none"
        )
    bare = made[components[0]].replace(MARK, "")
    made[components[0]] = bare if image is not None else _marked(bare, _indent(bare))
    return made


def _lines(overlay: Path) -> list[str]:
    try:
        return overlay.read_text().splitlines(keepends=True)
    except OSError as error:
        raise VitrineError(f"{overlay} cannot be read ({error.strerror}); name a kustomization.yaml") from error


def _entry(overlay: Path, lines: Sequence[str], image: str) -> slice:
    """Where the lines of an image are."""
    starts = [at for at, line in enumerate(lines) if re.fullmatch(rf" *({MARK})?- name: {image}\s*", line)]
    ends = []
    for start in starts:
        end = start + 1
        while end < len(lines) and FIELD.match(lines[end].replace(MARK, "")):
            end += 1
        ends.append(end)
    tagged = [any("newTag:" in line for line in lines[start:end]) for start, end in zip(starts, ends, strict=True)]
    if sum(tagged) != 1:
        raise VitrineError(
            f"{overlay} must say once, under images, `- name: {image}` with a `newTag` that is the number of a release"
        )
    return slice(starts[tagged.index(True)], ends[tagged.index(True)])


def _number(overlay: Path, lines: list[str], image: str) -> int:
    entry = lines[_entry(overlay, lines, image)]
    tags = [found["rest"] for line in entry if (found := FIELD.match(line)) and found["name"] == "newTag"]
    value = VALUE.match(tags[0])
    if value is None:
        raise VitrineError(
            f'{overlay}: expected a newTag of {image} such as "7" or "7-1a2b3c4d@sha256:..."; got {tags[0]}'
        )
    return int(value["number"])


def _named(entry: list[str], tag: str, image: Image | None) -> list[str]:
    """The lines of an image, with another tag, and another name where that is known."""
    made = []
    for line in entry:
        found = FIELD.match(line)
        if found is None:
            made.append(line)
        elif found["name"] == "newName":
            made.append(line if image is None else re.sub(r"(newName: *)\S+", rf"\g<1>{image.name}", line))
        else:
            if image is not None and not any("newName:" in each for each in entry):
                made.append(f"{found['before']}newName: {image.name}\n")
            value = VALUE.match(found["rest"])
            kept = found["rest"][value.end() :] if value else ""
            made.append(f'{found["before"]}newTag: "{tag}"{kept}\n')
    return made


def _marked(line: str, indent: int) -> str:
    return f"{line[:indent]}{MARK}{line[indent:]}"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _replace(overlay: Path, lines: Sequence[str]) -> None:
    write_text(overlay, "".join(lines))


if __name__ == "__main__":
    print(read(Path(sys.argv[1])))
