"""From text to a syntax tree."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import tree_sitter
import tree_sitter_bicep

_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language()))

_DECLARATIONS = {
    "parameter_declaration": "param",
    "variable_declaration": "var",
    "resource_declaration": "resource",
    "module_declaration": "module",
    "output_declaration": "output",
}


class BicepError(Exception):
    """Something in a file is not as it has to be."""

    def __init__(self, path, node, message):
        super().__init__(f"{path}:{node.start_point[0] + 1}: {message}")


@dataclass
class Declaration:
    kind: str
    name: str
    node: object
    decorators: list = field(default_factory=list)


@dataclass
class Source:
    path: Path
    root: object
    declarations: list

    def of_kind(self, kind):
        return {d.name: d for d in self.declarations if d.kind == kind}

    def names_used(self):
        """The names that expressions read; not those of declarations, properties and decorators."""
        return {
            text(node)
            for node in _walk(self.root)
            if node.type == "identifier"
            and node.parent.type not in (*_DECLARATIONS, "decorator")
            and not (node.parent.type == "object_property" and node == node.parent.named_children[0])
        } | {text(d.node.named_children[-1]) for d in self.declarations}


def text(node):
    return node.text.decode()


def parse(path):
    """Parses a file; raises BicepError for what is not Bicep."""
    path = Path(path)
    root, mistakes, declarations = _read(path.read_bytes())
    for node, message in mistakes:
        raise BicepError(path, node, message)
    return Source(path, root, declarations)


@cache
def _read(content):
    """The tree of a file, what is wrong in it, and what it declares. A module is read once for all its uses."""
    root = _PARSER.parse(content).root_node
    mistakes = []
    for node in _walk(root):
        if node.type == "ERROR" or node.is_missing:
            mistakes.append((node, f"not understood: {text(node)[:60]!r}"))
        elif node.type == "for_statement" and not _may_hold_loop(node):
            mistakes.append((node, "a loop cannot stand here (BCP138)"))
    declarations = _declarations(root, mistakes)
    return root, mistakes, declarations


def _walk(node):
    yield node
    for child in node.children:
        yield from _walk(child)


def _may_hold_loop(loop):
    """A loop is the whole value of a declaration, or of a property of a resource or module."""
    if loop.parent.type in _DECLARATIONS:
        return True
    if loop.parent.type != "object_property":
        return False
    outer = loop.parent
    while outer is not None and outer.type not in _DECLARATIONS:
        outer = outer.parent
    return outer is not None and outer.type in ("resource_declaration", "module_declaration")


def _declarations(root, mistakes):
    found, decorators, seen = [], [], set()
    for node in root.named_children:
        if node.type == "decorators":
            decorators = node.named_children
        elif node.type in _DECLARATIONS:
            kind = _DECLARATIONS[node.type]
            name = text(node.named_children[0])
            # An output may have the name of something else.
            key = ("output" if kind == "output" else "", name)
            if key in seen:
                mistakes.append((node, f"{name} is declared twice"))
            seen.add(key)
            found.append(Declaration(kind, name, node, decorators))
            decorators = []
    return found
