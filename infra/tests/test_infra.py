"""Every check of every module `checks_*`, on this repository."""

import pytest

from checks import CHECKS
from project import Project

PROJECT = Project()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_that(check):
    check(PROJECT)
