"""All checks: the public functions of the modules `checks_*`. Each takes a Project and raises if something is wrong."""

import inspect

import checks_data
import checks_entry
import checks_files
import checks_functions
import checks_monitoring
import checks_security
import checks_topology

MODULES = (
    checks_topology,
    checks_data,
    checks_functions,
    checks_security,
    checks_entry,
    checks_monitoring,
    checks_files,
)

CHECKS = [
    function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if not name.startswith("_") and function.__module__ == module.__name__
]
