"""The one way from values to HTML: Jinja templates with autoescape, a policy that runs one known script, text made visible.

Every value that a template prints goes through `visible`, so control characters and bidirectional overrides show
themselves in place of acting; then it is escaped. This module refuses to know what a page says.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape

from batchrun import __version__
from batchrun.report import words
from batchrun.storage import user_cache
from batchrun.visible import visible

_LOADER: Final = jinja2.PackageLoader("batchrun.report")
POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; script-src {script}; form-action {form}"
)


def render(template: str, *, script: str | None = None, form_action: str = "'none'", **values: Any) -> str:
    """Return the page of `template`; `script` is the name of the one script it runs, None where it runs none."""
    code = source(script) if script else ""
    policy = POLICY.format(script=f"'sha256-{_digest(code)}'" if code else "'none'", form=form_action)
    return (
        environment()
        .get_template(template)
        .render(
            **values,
            policy=Markup(policy),  # noqa: S704 - made here of constants
            css=Markup(source("page.css")),  # noqa: S704 - our own file
            script=Markup(code),  # noqa: S704 - our own file
        )
    )


def fragment(template: str, macro: str, *values: Any) -> Markup:
    """Return what one macro of a template makes of `values`."""
    made: Markup = getattr(environment().get_template(template).module, macro)(*values)
    return made


@cache
def environment() -> jinja2.Environment:
    """Return the templates; a name that is missing in one is an error and not an empty place."""
    made = jinja2.Environment(
        loader=_LOADER,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
        bytecode_cache=_Compiled(),
        auto_reload=False,
    )
    made.globals.update(version=__version__, words=words)
    made.filters["for_each"] = for_each
    made.filters["drawing"] = Markup  # an SVG of `charts`, which no text of others goes into
    return made


class _Compiled(jinja2.BytecodeCache):
    """Compiled templates, kept for the next command: compiling those of a run's page takes 60 ms.

    Jinja takes one only for the same source and the same Python; here it is also of the same Jinja and of this very file, which
    says how templates are compiled.
    """

    def __init__(self) -> None:
        """Find out what templates are made of, besides their source."""
        ours = user_cache.fingerprint([Path(__file__)])
        self._made_of = None if ours is None else f"jinja {jinja2.__version__} ".encode() + ours

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        """Fill the bucket where its template was kept."""
        content = None if self._made_of is None else user_cache.kept(self._name(bucket), self._made_of)
        if content is not None:
            bucket.bytecode_from_string(content)

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        """Keep the bucket's template."""
        if self._made_of is not None:
            user_cache.keep(self._name(bucket), self._made_of, bucket.bytecode_to_string())

    @staticmethod
    def _name(bucket: jinja2.bccache.Bucket) -> str:
        return f"template-{bucket.key}"


@cache
def source(name: str) -> str:
    """Return the text of a file beside the templates."""
    return _LOADER.get_source(environment(), name)[0]


def for_each(pattern: str, lines: Iterable[Iterable[str]]) -> Markup:
    """Return `pattern`, HTML of a template with a `%s` for every text, once for each of `lines`.

    A page is made of such lines: made visible and escaped together they cost a fraction of what printing each text takes.
    """
    texts = [*map(visible, chain.from_iterable(lines))]
    if not texts:
        return Markup()
    cells = iter(str(escape("\0".join(texts))).split("\0"))  # no visible text has a NUL in it
    return Markup("".join(pattern % line for line in zip(*[cells] * pattern.count("%s"), strict=True)))  # noqa: S704 - escaped


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
