"""Builds the extension in C with the package, where there is a compiler. Without one the package is complete, and slower."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

SOURCE = Path("batchrun", "wire", "_runs.c")


class ExtensionHook(BuildHookInterface[Any]):
    """Adds the extension to a wheel; for an editable install, it is put beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build it, outside the tree, which may be read-only."""
        self._scratch = tempfile.mkdtemp()
        extension = Extension(".".join(SOURCE.with_suffix("").parts), [str(SOURCE)], optional=True)
        command = Distribution({"ext_modules": [extension]}).get_command_obj("build_ext")
        command.build_lib = command.build_temp = self._scratch
        command.ensure_finalized()
        command.run()
        built = Path(command.get_ext_fullpath(extension.name))
        if not built.exists():
            self.app.display_warning(
                "The extension could not be built (is there a C compiler?): replies are decoded more slowly."
            )
            return
        if version == "editable":
            shutil.copy(built, Path(self.root, SOURCE).parent)
        else:
            build_data["force_include"][str(built)] = str(SOURCE.with_name(built.name))
        build_data.update(pure_python=False, infer_tag=True)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove what is in the wheel by now."""
        shutil.rmtree(self._scratch)
