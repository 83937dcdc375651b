"""Compiles the core in src/: one library, called through plain C, that any Python can load.

`kernel.cpp` is compiled once for each level of processor. Compiled files are kept in build/core under a digest of all
that went into them. CXX names another compiler, CXXFLAGS and LDFLAGS add to what it is told.
"""

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCE, OBJECTS = Path("src"), Path("build/core")
LEVELS = ["v2", "v3", "v4"] if platform.machine() in ("x86_64", "AMD64") else ["native"]  # of kernel.cpp
FLAGS = [
    *("-std=c++17", "-O3", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"),
    *("-fno-math-errno", "-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-psabi"),
    *([] if sys.platform == "win32" else ["-fPIC"]),
    *shlex.split(os.environ.get("CXXFLAGS", "")),
]


def compiler():
    """The command that compiles C++: CXX, the machine's own, or ziglang's (see tools/backend.py)."""
    if command := shlex.split(os.environ.get("CXX", "")):
        return command
    own = [] if sys.platform == "win32" else [name for name in ("c++", "g++", "clang++") if shutil.which(name)]
    return own[:1] or [sys.executable, "-m", "ziglang", "c++"]


def commands(cxx):
    """Each source's path with the command, but for the files' names, that compiles it; the longest first."""
    march = "-march=x86_64_" if "ziglang" in cxx else "-march=x86-64-"
    for level in LEVELS[::-1]:
        flags = [] if level == "native" else [march + level]
        yield SOURCE / "kernel.cpp", [*cxx, *FLAGS, f"-DLEVEL={level}", *flags]
    for path in sorted(SOURCE.glob("*.cpp")):
        if path.name != "kernel.cpp":
            yield path, [*cxx, *FLAGS]


def run(command):
    """Run a compiler; its own messages say what is wrong."""
    if status := subprocess.run(command).returncode:
        sys.exit(f"status {status} from: {shlex.join(command)}")


def compiled(path, command):
    """The object file, made now if need be."""
    digest = hashlib.sha256(shlex.join(command).encode())
    for part in (path, *sorted(SOURCE.glob("*.hpp"))):
        digest.update(part.read_bytes())
    out = OBJECTS / f"{path.stem}-{digest.hexdigest()[:16]}.o"
    if not out.exists():
        unfinished = out.with_suffix(".new")
        run([*command, "-c", str(path), "-o", str(unfinished)])
        unfinished.replace(out)
    return out


class Build(build_ext):
    """Compile and link, two steps that setuptools would do with flags of Python's own."""

    def get_ext_filename(self, name):
        return name.replace(".", "/") + ".so"  # called by ctypes: of no Python version

    def build_extension(self, ext):
        cxx = compiler()
        OBJECTS.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda job: compiled(*job), commands(cxx)))
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        if "ziglang" in cxx:  # as C, for nothing of the C++ library is used, and zig would build that first
            cxx, link = [*cxx[:-1], "cc"], ["-s"]
        else:
            link = ["-Wl,--as-needed"] if sys.platform == "linux" else []
        link += shlex.split(os.environ.get("LDFLAGS", ""))
        unfinished = library.with_suffix(".new")  # a process that has the old one loaded keeps it
        run([*cxx, "-shared", "-o", str(unfinished), *map(str, objects), *link])
        unfinished.replace(library)


class Wheel(bdist_wheel):
    """A wheel for one platform and every Python."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


def readme():
    """README.md for the package index, where links to files lead to this version's in the repository."""
    source = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["urls"]["Source"]
    version = re.search(r'__version__ = "(.*)"', Path("bayesgmm/__init__.py").read_text("utf-8"))[1]
    return re.sub(r"\]\((?!\w+:|#)", f"]({source}/blob/v{version}/", Path("README.md").read_text("utf-8"))


setup(
    ext_modules=[Extension("bayesgmm._core", [])],
    cmdclass={"build_ext": Build, "bdist_wheel": Wheel},
    long_description=readme(),
    long_description_content_type="text/markdown",
)
