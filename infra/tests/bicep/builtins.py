"""The functions of Bicep that this project uses."""

import hashlib
import json


def _digest(parts):
    return hashlib.sha256("\0".join(map(str, parts)).encode())


def unique_string(*parts):
    """Like Bicep's: 13 letters and digits that depend on the parts alone. The letters themselves are others."""
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    return "".join(alphabet[byte % 32] for byte in _digest(parts).digest()[:13])


def guid(*parts):
    digest = _digest(parts).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))


def contains(where, what):
    return what in where


def union(*values):
    if isinstance(values[0], dict):
        return {name: value for members in values for name, value in members.items()}
    return list(dict.fromkeys(item for items in values for item in items))


PURE = {
    "contains": contains,
    "empty": lambda value: not value,
    "guid": guid,
    "join": lambda items, separator: separator.join(items),
    "length": len,
    "max": max,
    "min": min,
    "range": lambda start, count: list(range(start, start + count)),
    "replace": lambda where, old, new: where.replace(old, new),
    "split": lambda where, separator: where.split(separator),
    "string": lambda value: value if isinstance(value, str) else json.dumps(value),
    "toLower": str.lower,
    "union": union,
    "uniqueString": unique_string,
}
