"""Makes a component of a module and all that it imports: ``sharpfaas-build --help``."""

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

WORLD = "function"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives the code to exit with."""
    parser = argparse.ArgumentParser(
        prog="sharpfaas-build", description="Makes a component of a Python module and all that it imports."
    )
    parser.add_argument("module", nargs="?", default="app", help="the module with the function; app by default")
    parser.add_argument("--path", type=Path, default=Path("."), help="the folder it lies in; this one by default")
    parser.add_argument("--out", type=Path, help="the component; dist/MODULE.wasm by default")
    options = parser.parse_args(arguments)
    out = options.out or Path("dist") / f"{options.module}.wasm"
    source = options.path / f"{options.module.replace('.', '/')}.py"
    if not source.is_file() and not (source.with_suffix("") / "__init__.py").is_file():
        return _say(f"{source} is not there: name the function's module")
    tool = _tool()
    if tool is None:
        return _say("componentize-py is missing: run 'pip install componentize-py'")
    out.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([*tool, *_arguments(options.module, options.path, out)], stdin=subprocess.DEVNULL)
    if made.returncode != 0:
        return _say(f"{options.module} could not be made a component: see above")
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _arguments(module: str, path: Path, out: Path) -> list[str]:
    own = Path(__file__).parent
    # What is installed is on the path too, but for the tools that came with it.
    paths = [path, own.parent, *_installed(path)]
    given = [argument for each in dict.fromkeys(map(str, paths)) for argument in ("--python-path", each)]
    return ["--quiet", "--wit-path", str(_wit(own)), "--world", WORLD, "componentize", *given, "--output", str(out), module]


def _wit(own: Path) -> Path:
    # Within the repository the interface has one place, for all languages.
    for folder in (own / "wit", own.parents[2] / "wit"):
        if (folder / "function.wit").is_file():
            return folder
    raise FileNotFoundError(f"{own} is not whole: it has no wit/function.wit")


def _installed(path: Path) -> list[Path]:
    """Where packages are that the function may import: those of this Python's environment, if it has one of its own."""
    return [Path(sysconfig.get_path("purelib"))] if sys.prefix != sys.base_prefix else []


def _tool() -> list[str] | None:
    beside = Path(sysconfig.get_path("scripts")) / "componentize-py"
    if beside.is_file():
        return [str(beside)]
    try:
        import componentize_py  # noqa: F401
    except ImportError:
        return None
    return [sys.executable, "-m", "componentize_py"]


def _say(text: str) -> int:
    print(f"sharpfaas-build: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
