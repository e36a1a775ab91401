"""Files as a disk, a crash or a hand leaves them: seeded changes of text and of the values in it."""

import json
import random
import re

ODD = ["null", "true", "-1", "0", "1.5", "NaN", "Infinity", "1e999", "9" * 25, "9" * 5000, '"text"', '""', "[]", "{}"]
ODD += ["[[1]]", '{"a": {"b": 1}}', '"\\ud800"', '"</script>"', "[" * 3000, "&a [*a]", "*a", "!!bool x", "2026-13-01"]
ODD += [
    "0x1F",
    "~",
    "'",
    '"',
    ",",
    ":",
    "- ",
    "\n",
    "\t",
    "\0",
    "\x1b[31m",
    "é",
    "\ufeff",
    "\u2028",
    "nan",
    "inf",
    "-inf",
]
_TOKEN = re.compile(rb"[-+.\w/]+|[^\s\w]")


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Return a file with one to three changes."""
    for _ in range(chance.randint(1, 3)):
        content = chance.choice(MUTATIONS)(content, chance)
    return content


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(chance.choice((1, 1, 5))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _cut_out(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    return content[:start] + content[start + chance.choice((1, 10, 300)) :]


def _put_in(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    return content[:start] + chance.choice(ODD).encode("utf-8", "surrogatepass") + content[start:]


def _other_token(content: bytes, chance: random.Random) -> bytes:
    """Put something of another type in the place of a token: a number, a name, a bracket."""
    tokens = list(_TOKEN.finditer(content))
    if not tokens:
        return content
    token = chance.choice(tokens)
    other = chance.choice((chance.choice(ODD).encode("utf-8", "surrogatepass"), chance.choice(tokens)[0]))
    return content[: token.start()] + other + content[token.end() :]


def _other_lines(content: bytes, chance: random.Random) -> bytes:
    """Give a line twice, leave one out, or swap two."""
    lines = content.split(b"\n")
    one, two = chance.randrange(len(lines)), chance.randrange(len(lines))
    kind = chance.randrange(3)
    if kind == 0:
        lines.insert(two, lines[one])
    elif kind == 1:
        del lines[one]
    else:
        lines[one], lines[two] = lines[two], lines[one]
    return b"\n".join(lines)


def _other_encoding(content: bytes, chance: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(chance.choice(("utf-16", "utf-32", "latin-1", "utf-8-sig")), "replace")


def _other_value(content: bytes, chance: random.Random) -> bytes:
    """In JSON: another value at a random place in the tree, or a key less. Other files get another token."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return _other_token(content, chance)
    places = list(_places(tree))
    if not places:
        return content
    above, key = chance.choice(places)
    if chance.random() < 0.2:
        del above[key]
    else:
        above[key] = chance.choice((None, True, -1, 0.5, 10**30, float("nan"), "text", [], {}, [[1]], {"a": 1}, above))
    try:
        return json.dumps(tree, indent=2).encode()
    except (ValueError, RecursionError):  # a value of itself
        above[key] = None
        return json.dumps(tree, indent=2).encode()


def _places(tree):
    if isinstance(tree, dict | list):
        for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
            yield tree, key
            yield from _places(value)


MUTATIONS = (_flip, _cut, _cut_out, _put_in, _other_token, _other_token, _other_lines, _other_encoding, _other_value)
MUTATIONS += (_other_value, _other_value)
