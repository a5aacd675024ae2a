"""Multipart bodies and forms -> their parts (RFC 7578, RFC 2046). What a part is, its name says; not its file name."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import Malformed

MAX_PARTS = 40
MAX_HEADER = 8 * 1024  # bytes of all headers of a part


@dataclass(slots=True)
class Part:
    """One part. content_type: in lower case, without parameters, "" where it says none."""

    name: str
    data: bytes
    filename: str | None = None
    content_type: str = ""


@dataclass(slots=True)
class _Reading:
    """What the parser tells, as it goes along."""

    parts: list[Part] = field(default_factory=list)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes = b""
    value: bytes = b""
    pieces: list[bytes] = field(default_factory=list)
    ended: bool = False

    def begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise Malformed(f"the multipart body has more than {MAX_PARTS} parts")
        self.headers, self.name, self.value, self.pieces = {}, b"", b"", []

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]
        self._bound()

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]
        self._bound()

    def header_end(self) -> None:
        self.headers[self.name.lower()] = self.value
        self.name = self.value = b""

    def piece(self, data: bytes, start: int, end: int) -> None:
        self.pieces.append(data[start:end])

    def finish(self) -> None:
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise Malformed("a part of the multipart body has no name in its Content-Disposition")
        filename = options.get(b"filename")
        content_type, _ = parse_options_header(self.headers.get(b"content-type", b""))
        self.parts.append(
            Part(
                _text(options[b"name"]),
                b"".join(self.pieces),
                None if filename is None else _text(filename),
                content_type.decode("latin-1").lower(),
            ),
        )

    def end(self) -> None:
        self.ended = True

    def _bound(self) -> None:
        if len(self.name) + len(self.value) + sum(map(len, self.headers.values())) > MAX_HEADER:
            raise Malformed(f"the headers of a part have more than {MAX_HEADER} bytes")


def read_multipart(body: bytes, content_type: str) -> list[Part]:
    """The parts of a body, in order. What stands before the first boundary and after the last is passed over.

    Raises Malformed."""
    _, options = parse_options_header(content_type.encode("latin-1", "replace"))
    boundary = options.get(b"boundary")
    if not boundary:
        raise Malformed("the multipart body has no boundary in its Content-Type")
    first = b"--" + boundary
    at = 0 if body.startswith(first) else body.find(b"\r\n" + first) + 2
    if at == 1:
        raise Malformed("the multipart body does not hold the boundary that its Content-Type names")
    reading = _Reading()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": reading.begin,
            "on_header_field": reading.header_field,
            "on_header_value": reading.header_value,
            "on_header_end": reading.header_end,
            "on_part_data": reading.piece,
            "on_part_end": reading.finish,
            "on_end": reading.end,
        },
    )
    try:
        parser.write(body[at:] if at else body)
    except (MultipartParseError, ValueError) as error:
        raise Malformed(f"the multipart body cannot be read ({error})") from error
    if not reading.ended:
        raise Malformed("the multipart body breaks off before its closing boundary")
    return reading.parts


def read_form(body: bytes) -> list[Part]:
    """The fields of an url-encoded body. Raises Malformed."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARTS)
    except ValueError as error:
        raise Malformed(f"the form cannot be read ({error})") from error
    return [Part(name, value.encode()) for name, value in pairs]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")  # as browsers of old wrote names
