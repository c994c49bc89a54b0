"""Stripe's request encoding: `line_items[0][price_data][currency]=usd` to nested dicts and lists.

Responsible for reading forms and query strings, and for the typed look-ups that turn a wrong or
missing parameter into Stripe's own refusal. It must not know what the parameters mean. Sizes are
bounded, because a request is untrusted: Stripe's largest legitimate call of ours (20 lines) has
about 100 pairs.
"""

import re
from typing import Any, Final
from urllib.parse import parse_qsl

from commerce.sandbox.refusals import invalid

PAIRS_MAX: Final = 600
DEPTH_MAX: Final = 8
LIST_MAX: Final = 100
"""Entries of one list; Stripe allows 100 line items in payment mode."""
METADATA_KEYS_MAX: Final = 50
METADATA_VALUE_CHARS_MAX: Final = 500
_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_PART = re.compile(r"\[([^\[\]]*)\]")

Params = dict[str, Any]


def parse(text: str) -> Params:
    """The nested parameters of a form or query string. Raises `ApiRefused` (400)."""
    pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=PAIRS_MAX)
    tree: Params = {}
    for name, value in pairs:
        match = _KEY.match(name)
        if match is None:
            raise invalid(f"Invalid parameter name: {name[:80]}", param=name[:80])
        path = [match.group(1), *_PART.findall(match.group(2))]
        if len(path) > DEPTH_MAX:
            raise invalid("Parameters are nested too deeply.", param=name[:80])
        _put(tree, path, value)
    return {name: _lists(value) for name, value in tree.items()}


def _put(tree: Params, path: list[str], value: str) -> None:
    node = tree
    for part in path[:-1]:
        key = part if part else str(len(node))
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            raise invalid(f"Invalid parameter: {path[0]}", param=path[0])
        node = child
    last = path[-1] if path[-1] else str(len(node))
    node[last] = value


def _lists(value: Any) -> Any:
    """`{"0": a, "1": b}` is how a list arrives."""
    if not isinstance(value, dict):
        return value
    plain = {key: _lists(child) for key, child in value.items()}
    if plain and all(key.isascii() and key.isdigit() for key in plain):
        if len(plain) > LIST_MAX:
            raise invalid("A list has too many entries.")
        return [plain[key] for key in sorted(plain, key=int)]
    return plain


def text(params: Params, name: str, *, default: str | None = None) -> str:
    """A text parameter. Raises `ApiRefused` when missing and without default."""
    value = params.get(name, default)
    if value is None or value == "":
        if default is not None:
            return default
        raise invalid(f"Missing required param: {name}.", param=name, code="parameter_missing")
    if not isinstance(value, str):
        raise invalid(f"Invalid string: {name}.", param=name)
    return value


def integer(params: Params, name: str, *, default: int | None = None) -> int:
    """A whole number. Raises `ApiRefused`."""
    value = params.get(name)
    if value is None or value == "":
        if default is not None:
            return default
        raise invalid(f"Missing required param: {name}.", param=name, code="parameter_missing")
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,15}", value):
        raise invalid(f"Invalid integer: {name}", param=name, code="parameter_invalid_integer")
    return int(value)


def choice(params: Params, name: str, allowed: tuple[str, ...], default: str) -> str:
    """One of `allowed`. Raises `ApiRefused`."""
    value = text(params, name, default=default)
    if value not in allowed:
        known = ", ".join(allowed)
        raise invalid(f"Invalid {name}: must be one of {known}", param=name)
    return value


def metadata(params: Params) -> dict[str, str]:
    """Up to 50 keys of up to 500 characters, as Stripe has it. Raises `ApiRefused`."""
    given = params.get("metadata", {})
    if given == "":
        return {}
    if not isinstance(given, dict) or len(given) > METADATA_KEYS_MAX:
        raise invalid("Invalid metadata.", param="metadata")
    for key, value in given.items():
        if not isinstance(value, str) or len(value) > METADATA_VALUE_CHARS_MAX or len(key) > 40:
            raise invalid(f"Invalid metadata: {key[:40]}", param=f"metadata[{key[:40]}]")
    return dict(given)
