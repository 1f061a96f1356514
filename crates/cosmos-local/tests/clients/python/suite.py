"""The Python SDK, unmodified, against an account of several regions."""

import unittest

from feed import *  # noqa: F403
from items import *  # noqa: F403
from queries import *  # noqa: F403
from regions import *  # noqa: F403
from throughput import *  # noqa: F403

unittest.main(verbosity=2)
