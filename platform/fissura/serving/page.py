"""The page of the service: one file, and a content security policy that allows nothing else."""

import base64
import hashlib
import re
from importlib.resources import files


def page() -> tuple[str, str]:
    """The HTML document, and the value of its header `Content-Security-Policy`."""
    # read as text, since a browser hashes with all line endings as "\n"
    html = (files("fissura.serving") / "page.html").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'",
        f"script-src {_hash(html, 'script')}",
        f"style-src {_hash(html, 'style')}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # the script cannot turn text into markup or code
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return html, "; ".join(policy)


def _hash(html: str, tag: str) -> str:
    """The source expression for the one `tag` element of the document (Content Security Policy, level 3)."""
    [text] = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
