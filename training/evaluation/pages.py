"""Self-contained pages from templates, written whole or not at all."""

from pathlib import Path
from typing import Any

import jinja2

from service.files import write_text

STYLE = Path(__file__).with_name("page.css")


def write_page(template: Path, path: Path, **values: Any) -> None:
    """Render a template into one file."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(template.read_text())
    write_text(path, page.render(style=STYLE.read_text(), **values))
