"""What is built and installed: the wheel, the source distribution, and what the libraries show."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from child import check_child
from elftools.dwarf.callframe import FDE
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

import dromon
from dromon import _platform

ROOT = Path(__file__).parent.parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
LIBRARIES = ["libdromon.so", f"_bridge{SUFFIX}", f"_native{SUFFIX}"]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution of this tree, and the wheel that is built from it alone."""
    if not (ROOT / ".git").exists():
        pytest.skip("a source distribution is made from a git checkout")
    folder = tmp_path_factory.mktemp("dist")
    # meson and ninja are those beside this Python; the checkout may belong to another user.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GIT_CONFIG_COUNT": "1"}
    environment |= {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
        env=environment,
    )
    return folder


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / "dromon"


def test_the_source_distribution_has_all_that_a_build_needs(distributions: Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ["meson.build", "native/include/dromon/dromon.h", "LICENSE-MIT", "README.md"]:
        assert needed in names


def test_the_wheel_holds_the_package_its_three_libraries_and_the_header(unpacked: Path) -> None:
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert {"__init__.py", "py.typed", "_bridge.pyi", "_native.pyi", *LIBRARIES} <= names
    assert [name for name in names if name.endswith((".c", ".h"))] == ["include/dromon/dromon.h"]
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_works_in_a_fresh_environment_outside_the_tree(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    # Its dependencies come from this environment, so that the test needs no network.
    dependencies = sysconfig.get_path("purelib")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
        capture_output=True,
        timeout=120,
    )
    script = f"""if True:
        import sys
        sys.path.append({dependencies!r})
        sys.meta_path[:] = [each for each in sys.meta_path if "Mesonpy" not in type(each).__name__]
        import trio, dromon
        print(dromon.__file__)
        print(dromon.get_include())
        print(dromon.get_library())
        print(trio.run(dromon.to_thread.run_sync, sum, [1, 2, 3]))
    """
    output = subprocess.run(
        [python, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60
    ).stdout.split()
    package = Path(output[0]).parent
    assert package.is_relative_to(tmp_path)
    assert output[1:] == [str(package / "include"), str(package / "libdromon.so"), "6"]
    assert (package / "include" / "dromon" / "dromon.h").is_file()
    assert (package / "libdromon.so").is_file()


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, unpacked: Path) -> Iterator[ELFFile]:
    with open(unpacked / request.param, "rb") as file:
        yield ELFFile(file)


def dynamic_tags(library: ELFFile) -> dict[str, str]:
    (section,) = (each for each in library.iter_sections() if isinstance(each, DynamicSection))
    tags = {}
    for tag in section.iter_tags():
        name = tag.entry.d_tag.removeprefix("DT_").lower()
        if hasattr(tag, name):
            tags[name] = getattr(tag, name)
    return tags


def exported(library: ELFFile) -> set[str]:
    symbols = library.get_section_by_name(".dynsym").iter_symbols()
    return {
        symbol.name
        for symbol in symbols
        if symbol.entry.st_shndx != "SHN_UNDEF" and symbol.entry.st_info.bind != "STB_LOCAL"
    }


def test_no_library_asks_for_an_executable_stack(library: ELFFile) -> None:
    (stack,) = (each for each in library.iter_segments() if each.header.p_type == "PT_GNU_STACK")
    assert stack.header.p_flags & 1 == 0


def test_modules_find_the_core_beside_themselves(unpacked: Path) -> None:
    for name in LIBRARIES[1:]:
        with open(unpacked / name, "rb") as file:
            tags = dynamic_tags(ELFFile(file))
        assert tags["runpath" if "runpath" in tags else "rpath"] == "$ORIGIN"


def test_the_core_shows_what_the_public_header_declares_and_nothing_else(unpacked: Path) -> None:
    header = (ROOT / "native/include/dromon/dromon.h").read_text()
    declared = set(re.findall(r"^DROMON_API [^;(]*?(\w+)\(", header, re.MULTILINE))
    with open(unpacked / "libdromon.so", "rb") as file:
        assert exported(ELFFile(file)) == declared


def test_modules_show_only_their_entry_point(unpacked: Path) -> None:
    for name in LIBRARIES[1:]:
        with open(unpacked / name, "rb") as file:
            symbols = exported(ELFFile(file))
        assert {symbol for symbol in symbols if not symbol.startswith("_cffi")} == {
            f"PyInit_{name.partition('.')[0]}"
        }


def test_the_assembly_has_unwind_information(unpacked: Path) -> None:
    with open(unpacked / "libdromon.so", "rb") as file:
        library = ELFFile(file)
        (entry,) = (
            symbol.entry.st_value
            for symbol in library.get_section_by_name(".symtab").iter_symbols()
            if symbol.name == "arch_clone3_transfer"
        )
        covered = [
            each.header
            for each in library.get_dwarf_info().EH_CFI_entries()
            if isinstance(each, FDE)
        ]
    assert any(each.initial_location == entry for each in covered)


def test_every_declaration_of_the_header_is_there_for_cffi() -> None:
    from dromon._native import lib

    header = (ROOT / "native/include/dromon/dromon.h").read_text()
    for name in re.findall(r"^DROMON_API [^;(]*?(\w+)\(", header, re.MULTILINE):
        assert callable(getattr(lib, name))
    for name in re.findall(r"^  (DROMON_\w+)", header, re.MULTILINE):
        assert isinstance(getattr(lib, name), int)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_both_processors_with_assembly_are_accepted(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    _platform.check()
    assert (ROOT / "native/core/arch" / f"{machine}.S").exists()


def test_the_version_is_the_one_that_is_installed() -> None:
    assert dromon.__version__ == importlib.metadata.version("dromon")


def test_the_python_that_cannot_have_green_threads_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    with pytest.raises(ImportError, match=r"CPython 3\.14\.0.*3\.14\.1"):
        _platform.check()
    assert "!=3.14.0" in importlib.metadata.metadata("dromon")["Requires-Python"]


@pytest.mark.parametrize(
    ("system", "machine"), [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "riscv64")]
)
def test_import_on_another_platform_fails_with_one_clear_sentence(
    system: str, machine: str
) -> None:
    check_child(
        f"""
        import os, platform, sys, types
        import dromon  # found, and loaded on this machine
        from dromon import _platform
        sys.platform = {system!r}
        platform.machine = lambda: {machine!r}
        os.uname = lambda: types.SimpleNamespace(machine={machine!r})
        for name in [name for name in sys.modules if name.startswith("dromon")]:
            del sys.modules[name]
        try:
            import dromon
        except ImportError as error:
            print(error)
        """,
        f"dromon runs on Linux x86-64 and aarch64 only, and this is {system} {machine}.",
    )
