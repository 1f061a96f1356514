"""From a file and its parameters to the resources that it deploys."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import builtins
from .expressions import Expressions
from .runtime import Properties
from .source import BicepError, parse, text

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"

_TYPES = {"string": str, "int": int, "bool": bool, "array": list, "object": dict}
_BUSY = object()


@dataclass
class Resource:
    """One deployed resource."""

    type: str
    api_version: str
    name: str
    id: str
    group: str | None
    body: dict
    source: str

    @property
    def properties(self):
        return self.body.get("properties", {})


def deploy(path, parameters):
    """All resources of `path` and its modules, and its outputs."""
    deployment = Deployment(Path(path).resolve(), parameters, None, [])
    return deployment.run()


class Deployment:
    """One file with one set of parameters in one resource group (none: the subscription)."""

    def __init__(self, path, parameters, group, resources):
        self.source = parse(path)
        self.path = path
        self.group = group
        self.resources = resources
        self.expressions = Expressions(path, self)
        self._declared = {d.name: d for d in self.source.declarations if d.kind != "output"}
        self._values = {}
        self._take(parameters)

    def run(self):
        for declaration in self.source.declarations:
            if declaration.kind != "output":
                value = self.lookup(declaration.name, declaration.node)
                for item in value if isinstance(value, list) else [value]:
                    if isinstance(item, (ResourceSymbol, ModuleSymbol)):
                        item.deploy()
        outputs = {name: self.output(name, d.node) for name, d in self.source.of_kind("output").items()}
        return self.resources, outputs

    def fail(self, node, message):
        return BicepError(self.path, node, message)

    # Parameters.

    def _take(self, parameters):
        declared = self.source.of_kind("param")
        for name in parameters:
            if name not in declared:
                raise self.fail(self.source.root, f"there is no parameter {name}")
        for name, declaration in declared.items():
            children = [c for c in declaration.node.named_children if c.type != "comment"]
            if name in parameters:
                value = parameters[name]
            elif len(children) > 2:
                value = self.expressions.value(children[2])
            else:
                raise self.fail(declaration.node, f"the parameter {name} is missing")
            self._check(declaration, text(children[1]), value)
            self._values[name] = value

    def _check(self, declaration, kind, value):
        name = declaration.name
        expected = _TYPES.get(kind)
        if expected is None:
            raise self.fail(declaration.node, f"the type {kind} is not known to these tests")
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise self.fail(declaration.node, f"{name} is {kind}, not {value!r}")
        for rule, bound in self.decorators(declaration).items():
            size = len(value) if isinstance(value, (str, list)) else value
            refused = (
                (rule == "allowed" and value not in bound)
                or (rule in ("minValue", "minLength") and size < bound)
                or (rule in ("maxValue", "maxLength") and size > bound)
            )
            if refused:
                raise self.fail(declaration.node, f"{name} cannot be {value!r}: @{rule}({bound})")

    def decorators(self, declaration):
        calls = (d.named_children[0] for d in declaration.decorators if d.type == "decorator")
        return {
            text(call.child_by_field_name("function")): self.expressions.value(
                call.child_by_field_name("arguments").named_children[0]
            )
            for call in calls
            if call.child_by_field_name("arguments").named_children
        }

    # Names.

    def lookup(self, name, node):
        if name not in self._values:
            declaration = self._declared.get(name)
            if declaration is None:
                raise self.fail(node, f"{name} is not declared")
            self._values[name] = _BUSY
            self._values[name] = self._declare(declaration)
        value = self._values[name]
        if value is _BUSY:
            raise self.fail(node, f"{name} depends on itself")
        return value

    def _declare(self, declaration):
        value_node = declaration.node.named_children[-1]
        if declaration.kind == "var":
            return self.expressions.value(value_node)
        symbol = ResourceSymbol if declaration.kind == "resource" else ModuleSymbol
        return self.instances(symbol, declaration.node, value_node, {})

    def instances(self, symbol, node, value_node, local, **context):
        """The symbol of a declaration: one, none if its condition is false, or a list of them."""
        if value_node.type == "for_statement":
            return [
                self.instances(symbol, node, body, names, **context)
                for body, names in self.expressions.iterations(value_node, local)
            ]
        if value_node.type == "if_statement":
            if not self.expressions.value(value_node.named_children[0], local):
                return None
            value_node = value_node.named_children[1]
        return symbol(self, node, value_node, local, **context)

    def output(self, name, node):
        declaration = self.source.of_kind("output").get(name)
        if declaration is None:
            raise self.fail(node, f"there is no output {name}")
        children = declaration.node.named_children
        value = self.expressions.value(children[-1])
        expected = _TYPES[text(children[1])]
        if not isinstance(value, expected):
            raise self.fail(declaration.node, f"the output {name} is {value!r}")
        return value

    # Functions that depend on where the deployment is.

    def function(self, name):
        return {
            "subscription": lambda: {"id": f"/subscriptions/{SUBSCRIPTION}", "subscriptionId": SUBSCRIPTION},
            "resourceGroup": self._resource_group,
            "subscriptionResourceId": lambda kind, *names: _id(f"/subscriptions/{SUBSCRIPTION}", kind, names),
        }.get(name)

    def _resource_group(self, name=None):
        name = name or self.group
        return {"id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}", "name": name, "group": name}


def _id(scope, kind, names):
    provider, *types = kind.split("/")
    return f"{scope}/providers/{provider}/" + "/".join(f"{t}/{n}" for t, n in zip(types, names, strict=True))


class Symbol:
    """What stands behind the name of a resource or module."""

    def __init__(self, deployment, node, body_node, local):
        self.deployment = deployment
        self.node = node
        self.body_node = body_node
        self.local = local

    def part(self, key, default=None):
        """The value of one top-level property, without the others."""
        for entry in self.body_node.named_children:
            if entry.type == "object_property" and text(entry.named_children[0]) == key:
                return self.deployment.expressions.value(entry.named_children[-1], self.local)
        return default

    def quoted(self):
        return self.deployment.expressions.value(self.node.named_children[1])


class ResourceSymbol(Symbol):
    def __init__(self, deployment, node, body_node, local, outer=None):
        super().__init__(deployment, node, body_node, local)
        kind, _, version = self.quoted().partition("@")
        self.parent = outer or self.part("parent")
        self.type = f"{outer.type}/{kind}" if outer else kind
        self.api_version = version or outer.api_version
        self.existing = any(child.type == "existing" for child in node.children)
        self._deployed = False

    @cached_property
    def name(self):
        own = self.part("name")
        return f"{self.parent.name}/{own}" if self.parent else own

    @cached_property
    def group(self):
        scope = self.part("scope")
        return scope["group"] if isinstance(scope, dict) else self.deployment.group

    @cached_property
    def id(self):
        scope = self.part("scope")
        root = f"/subscriptions/{SUBSCRIPTION}"
        if self.type == "Microsoft.Resources/resourceGroups":
            return f"{root}/resourceGroups/{self.name}"
        if isinstance(scope, ResourceSymbol):
            root = scope.id
        elif self.group:
            root += f"/resourceGroups/{self.group}"
        return _id(root, self.type, self.name.split("/"))

    def member(self, name, node):
        if name in ("id", "name", "type"):
            value = getattr(self, name)
            return value.split("/")[-1] if name == "name" else value
        if name == "properties":
            return Properties(self, self.deployment.fail)
        raise self.deployment.fail(node, f"a resource has no {name}")

    def deploy(self):
        if self.existing or self._deployed:
            return
        self._deployed = True
        body = self.deployment.expressions.value(self.body_node, self.local)
        for key in ("parent", "scope", "dependsOn", "name"):
            body.pop(key, None)
        self.deployment.resources.append(
            Resource(
                self.type,
                self.api_version,
                self.name,
                self.id,
                self.group,
                body,
                f"{self.deployment.path.name}:{text(self.node.named_children[0])}",
            )
        )
        for entry in self.body_node.named_children:
            child = entry.named_children[0] if entry.named_children else None
            if child is not None and child.type == "resource_declaration":
                value_node = child.named_children[-1]
                inner = self.deployment.instances(ResourceSymbol, child, value_node, self.local, outer=self)
                for symbol in inner if isinstance(inner, list) else [inner]:
                    if symbol is not None:
                        symbol.deploy()


class ModuleSymbol(Symbol):
    @cached_property
    def inner(self):
        scope = self.part("scope")
        group = self.deployment.group
        if isinstance(scope, ResourceSymbol):
            group = scope.name
        elif isinstance(scope, dict):
            group = scope["group"]
        path = (self.deployment.path.parent / self.quoted()).resolve()
        deployment = Deployment(path, self.part("params", {}), group, self.deployment.resources)
        self.part("dependsOn")
        return deployment

    @cached_property
    def _run(self):
        return self.inner.run()

    def deploy(self):
        if not isinstance(self.part("name", ""), str):
            raise self.deployment.fail(self.node, "a module has a name")
        return self._run

    def member(self, name, node):
        if name == "name":
            return self.part("name")
        if name == "outputs":
            return Outputs(self)
        raise self.deployment.fail(node, f"a module has no {name}")


class Outputs:
    def __init__(self, module):
        self._module = module

    def member(self, name, node):
        return self._module.inner.output(name, node)
