"""From an expression to its value."""

import json
import re

from . import builtins
from .source import BicepError, text

_ESCAPES = {"\\'": "'", "\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\$": "$"}
_ESCAPE = re.compile(r"\\.")

_BINARY = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}


class Expressions:
    """Computes values in one file. `scope` looks up the names that the file declares."""

    def __init__(self, path, scope):
        self.path = path
        self.scope = scope

    def value(self, node, local=None):
        method = getattr(self, "_" + node.type, None)
        if method is None:
            raise BicepError(self.path, node, f"{node.type} is not known to these tests")
        local = local or {}
        ternary = _misplaced_ternary(node)
        if ternary is not None and self._condition(ternary, local):
            return self.value(ternary.child_by_field_name("consequence"), local)
        return method(node, local)

    # Literals.

    def _string(self, node, local):
        quote = text(node.children[0])
        # By position, since the grammar keeps no spaces at the ends of a literal.
        parts, position, end = [], node.start_byte + len(quote), node.end_byte - len(quote)
        for child in node.named_children:
            if child.type == "interpolation":
                parts.append(self._literal(node, position, child.start_byte))
                parts.append(self._text(child, self.value(child.named_children[0], local)))
                position = child.end_byte
        parts.append(self._literal(node, position, end))
        value = "".join(parts)
        return value.removeprefix("\n") if quote == "'''" else value

    def _literal(self, string, start, end):
        raw = string.text[start - string.start_byte : end - string.start_byte].decode()
        return raw if string.text.startswith(b"'''") else _ESCAPE.sub(lambda m: _ESCAPES[m[0]], raw)

    def _text(self, node, value):
        if isinstance(value, (dict, list)) or value is None:
            raise BicepError(self.path, node, "only text can be put into a text")
        return value if isinstance(value, str) else json.dumps(value)

    def _number(self, node, _):
        return int(text(node))

    def _boolean(self, node, _):
        return text(node) == "true"

    def _null(self, _node, _):
        return None

    def _array(self, node, local):
        return [self.value(child, local) for child in _content(node)]

    def _object(self, node, local):
        result = {}
        for entry in _content(node):
            children = _content(entry)
            if children[0].type == "resource_declaration":
                continue
            key = text(children[0]) if children[0].type == "identifier" else self.value(children[0], local)
            if key in result:
                raise BicepError(self.path, entry, f"{key} is set twice")
            result[key] = self.value(children[1], local)
        return result

    # Names and what belongs to them.

    def _identifier(self, node, local):
        name = text(node)
        if name in local:
            return local[name]
        return self.scope.lookup(name, node)

    def _member_expression(self, node, local):
        owner = self.value(node.child_by_field_name("object"), local)
        name = text(node.child_by_field_name("property"))
        return self._member(node, owner, name)

    def _subscript_expression(self, node, local):
        owner = self.value(node.child_by_field_name("object"), local)
        index = self.value(node.child_by_field_name("index"), local)
        return self._member(node, owner, index)

    def _member(self, node, owner, name):
        if hasattr(owner, "member"):
            return owner.member(name, node)
        try:
            return owner[name]
        except (KeyError, IndexError, TypeError):
            kind = "something that is not deployed" if owner is None else f"this {type(owner).__name__}"
            raise BicepError(self.path, node, f"{kind} has no {name!r}") from None

    # Operators.

    def _parenthesized_expression(self, node, local):
        return self.value(node.named_children[0], local)

    def _unary_expression(self, node, local):
        argument = self.value(node.child_by_field_name("argument"), local)
        return -argument if node.children[0].type == "-" else not self._bool(node, argument)

    def _binary_expression(self, node, local):
        operator = node.children[1].type
        left = self.value(node.child_by_field_name("left"), local)
        right = node.child_by_field_name("right")
        if operator == "&&":
            return self._bool(node, left) and self._bool(node, self.value(right, local))
        if operator == "||":
            return self._bool(node, left) or self._bool(node, self.value(right, local))
        if operator not in _BINARY:
            raise BicepError(self.path, node, f"{operator} is not known to these tests")
        return _BINARY[operator](left, self.value(right, local))

    def _ternary_expression(self, node, local):
        chosen = "consequence" if self._condition(node, local) else "alternative"
        return self.value(node.child_by_field_name(chosen), local)

    def _condition(self, ternary, local):
        return self._bool(ternary, self.value(ternary.child_by_field_name("condition"), local))

    def _bool(self, node, value):
        if not isinstance(value, bool):
            raise BicepError(self.path, node, "a condition is true or false")
        return value

    # Functions.

    def _call_expression(self, node, local):
        name = text(node.child_by_field_name("function"))
        arguments = [self.value(child, local) for child in _content(node.child_by_field_name("arguments"))]
        if name == "loadJsonContent":
            return json.loads((self.path.parent / arguments[0]).read_text())
        if name == "loadTextContent":
            return (self.path.parent / arguments[0]).read_text()
        function = builtins.PURE.get(name) or self.scope.function(name)
        if function is None:
            raise BicepError(self.path, node, f"the function {name} is not known to these tests")
        try:
            return function(*arguments)
        except (TypeError, AttributeError, ValueError) as error:
            raise BicepError(self.path, node, f"{name}: {error}") from error

    # Loops: `[for item in items: body]` and `[for (item, index) in items: body]`.

    def iterations(self, node, local=None):
        """The body of a loop with the local names of each round."""
        children = _content(node)
        body = children[-1]
        items = self.value(children[1], local)
        if not isinstance(items, list):
            raise BicepError(self.path, node, "a loop goes over an array")
        names = [text(n) for n in children[0].named_children] if children[0].named_children else [text(children[0])]
        for index, item in enumerate(items):
            yield body, {**(local or {}), **dict(zip(names, (item, index)))}

    def _for_statement(self, node, local):
        return [self.value(body, names) for body, names in self.iterations(node, local)]


def _misplaced_ternary(node):
    """The grammar reads `a ? b : c.d` as `(a ? b : c).d`. What follows belongs to the alternative alone."""
    while node.type in ("member_expression", "subscript_expression", "call_expression", "binary_expression"):
        node = node.children[0]
        if node.type == "ternary_expression":
            return node
    return None


def _content(node):
    return [child for child in node.named_children if child.type not in ("comment", "diagnostic_comment")]
