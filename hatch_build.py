"""Builds the extensions in C with the package, where there is a compiler. Without one the package is complete, and slower."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

SOURCES = [
    Path("batchrun", "wire", "_answer.c"),
    Path("batchrun", "wire", "_runs.c"),
    Path("batchrun", "transport", "own", "_fields.c"),
    Path("batchrun", "sources", "_members.c"),
]
if sys.platform == "linux":
    SOURCES.append(Path("batchrun", "transport", "own", "_arrivals.c"))


class ExtensionHook(BuildHookInterface[Any]):
    """Adds the extensions to a wheel; for an editable install, they are put beside their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build them, outside the tree, which may be read-only."""
        self._scratch = tempfile.mkdtemp()
        extensions = [Extension(".".join(source.with_suffix("").parts), [str(source)], optional=True) for source in SOURCES]
        command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib = command.build_temp = self._scratch
        command.ensure_finalized()
        command.run()
        for source, extension in zip(SOURCES, extensions, strict=True):
            built = Path(command.get_ext_fullpath(extension.name))
            if not built.exists():
                self.app.display_warning(f"{source} could not be built (is there a C compiler?): batchrun will be slower.")
                continue
            build_data.update(pure_python=False, infer_tag=True)
            if version == "editable":
                shutil.copy(built, Path(self.root, source).parent)
            else:
                build_data["force_include"][str(built)] = str(source.with_name(built.name))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove what is in the wheel by now."""
        shutil.rmtree(self._scratch)
