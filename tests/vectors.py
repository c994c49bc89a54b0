"""The vector file as Python: reading it, and filling in bytes for vectors added by hand.

    python -m tests.vectors

packs every `meaning` that has no `hex` yet and writes the file back, one vector per line; and it
copies the table of `live.codes` here and into chapter 7 of PROTOCOL.md. It never changes bytes that
are there: those are the norm, and a codec that disagrees is the one to mend.
The packer is `msgpack`, not the server's codec: the server is held to bytes it did not make.
"""

import json
import re
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]

from live.codes import CODES

PATH = Path(__file__).parent.parent / "live" / "protocol_vectors.json"
PROSE = PATH.with_name("PROTOCOL.md")
CODES_HEAD = "| code | HTTP | temporary | sentence |\n|---|---|---|---|\n"

Vector = dict[str, Any]


def read() -> dict[str, Any]:
    return json.loads(PATH.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def layout(document: dict[str, Any]) -> str:
    """One vector per line, so that a difference shows which vector changed."""
    parts = []
    for key, value in document.items():
        if isinstance(value, list):
            rows = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in value)
            parts.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
        else:
            parts.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def codes_group() -> list[Vector]:
    """The group `codes`, as `live.codes` has it."""
    return [
        {"code": code, "status": row.status, "temporary": row.temporary}
        for code, row in CODES.items()
    ]


def codes_rows() -> list[list[str]]:
    """The table of chapter 7, as `live.codes` has it."""
    return [
        [f"`{code}`", str(row.status), "yes" if row.temporary else "", row.sentence]
        for code, row in CODES.items()
    ]


def with_codes(prose: str) -> str:
    """PROTOCOL.md with the table of codes renewed."""
    rows = "".join(f"| {' | '.join(row)} |\n" for row in codes_rows())
    table = re.compile(re.escape(CODES_HEAD) + r"(\|.*\n)*")
    return table.sub(lambda _: CODES_HEAD + rows, prose, count=1)


def frame_of(vector: Vector) -> bytes:
    """The bytes of a vector, `repeat` unrolled."""
    if "repeat" in vector:
        repeat = vector["repeat"]
        times: int = repeat["times"]
        unit = bytes.fromhex(repeat["unit"]) * times
        return bytes.fromhex(repeat["prefix"]) + unit + bytes.fromhex(repeat["suffix"])
    return bytes.fromhex(vector["hex"])


def plain(value: object) -> object:
    """`{"$bytes": hex}` in a meaning stands for bytes, which JSON does not have."""
    match value:
        case {"$bytes": str(digits)}:
            return bytes.fromhex(digits)
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
    return value


def envelope_of(meaning: Vector) -> list[object]:
    return [meaning["id"], meaning["name"], plain(meaning["params"])]


def fill(document: dict[str, Any]) -> int:
    """Adds `hex` where it is missing; the number of vectors that got it."""
    filled = 0
    for group in ("commands", "refused_commands", "pushes", "frames"):
        for place, vector in enumerate(document[group]):
            if "hex" in vector or "repeat" in vector:
                continue
            meaning = vector["meaning"]
            if group == "frames":
                values = meaning
            else:
                values = [meaning if group == "pushes" else envelope_of(meaning)]
            packed = b"".join(msgpack.packb(value) for value in values).hex()
            name = vector.pop("name")
            document[group][place] = {"name": name, "hex": packed, **vector}
            filled += 1
    return filled


if __name__ == "__main__":
    known = read()
    print(f"{fill(known)} vectors packed")
    PATH.write_text(layout({**known, "codes": codes_group()}), encoding="utf-8")
    PROSE.write_text(with_codes(PROSE.read_text(encoding="utf-8")), encoding="utf-8")
