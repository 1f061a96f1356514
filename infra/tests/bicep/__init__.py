"""Reads Bicep and says what it would deploy, without Azure and without the Bicep CLI.

`source` parses a file, `expressions` and `builtins` compute values, `deployment` turns a file and its parameters into
resources, `runtime` stands in for what only Azure knows. It knows the part of the language that this project uses and
refuses the rest by name; it does not know which properties a resource type has.
"""

from .deployment import Resource, deploy
from .source import BicepError, parse

__all__ = ["BicepError", "Resource", "deploy", "parse"]
