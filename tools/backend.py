"""setuptools, with the C++ compiler of the package index's ziglang where the machine has none that will do.

On Windows that is everywhere: MSVC knows no vector types, and GCC there does not align vectors on the stack.
"""

import os
import shutil
import sys

from setuptools import build_meta as _setuptools
from setuptools.build_meta import *  # noqa: F403


def _zig():
    own = sys.platform != "win32" and any(map(shutil.which, ("c++", "g++", "clang++")))
    return [] if own or os.environ.get("CXX") else ["ziglang"]


def get_requires_for_build_wheel(config_settings=None):
    """What a wheel's build needs installed."""
    return [*_setuptools.get_requires_for_build_wheel(config_settings), *_zig()]


def get_requires_for_build_editable(config_settings=None):
    """What an editable install needs installed."""
    return [*_setuptools.get_requires_for_build_editable(config_settings), *_zig()]
