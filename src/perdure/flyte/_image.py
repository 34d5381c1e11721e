"""Images as chains of layers: recorded, as bodies run in this process. A `ContainerTask` takes their base by name."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

Architecture = Literal["linux/amd64", "linux/arm64"]
INTERFACE = "2.12.1"
"""The version of Flyte with the interface that this package offers."""
PYTHON = (sys.version_info.major, sys.version_info.minor)


@dataclass(frozen=True)
class Layer:
    """One step of a chain: the kind, such as `pip_packages`, and its settings."""

    kind: str
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Image:
    """An image: a base, and layers on top. Each `with_...` gives another image, and leaves the image alone."""

    base_image: str | None = None
    dockerfile: Path | None = None
    registry: str | None = None
    name: str | None = None
    platform: tuple[Architecture, ...] = ("linux/amd64",)
    python_version: tuple[int, int] = PYTHON
    extendable: bool = False
    _is_cloned: bool = False
    _ref_name: str | None = None
    _layers: tuple[Layer, ...] = ()
    _image_registry_secret: Any = field(default=None, compare=False)

    # -- bases -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_base(cls, image_uri: str) -> Image:
        """The image of that name."""
        return cls(base_image=image_uri)

    @classmethod
    def from_debian_base(
        cls,
        python_version: tuple[int, int] | None = None,
        flyte_version: str | None = None,
        install_flyte: bool = True,
        registry: str | None = None,
        registry_secret: Any = None,
        name: str | None = None,
        platform: tuple[Architecture, ...] | None = None,
    ) -> Image:
        """Flyte's default image."""
        version = python_version or PYTHON
        return cls(
            base_image=f"ghcr.io/flyteorg/flyte:py{version[0]}.{version[1]}-v{INTERFACE}",
            registry=registry,
            name=name or "flyte",
            platform=platform or ("linux/amd64", "linux/arm64"),
            python_version=version,
            extendable=True,
            _image_registry_secret=registry_secret,
        )

    @classmethod
    def from_dockerfile(
        cls,
        file: Path | str,
        registry: str,
        name: str,
        platform: Architecture | tuple[Architecture, ...] | None = None,
    ) -> Image:
        """An image to be built from a Dockerfile."""
        return cls(dockerfile=Path(file), registry=registry, name=name, platform=_platforms(platform))

    @classmethod
    def from_ref_name(cls, name: str = "default") -> Image:
        """The image that a configuration knows under that name."""
        return cls(name=name, _ref_name=name)

    @classmethod
    def from_uv_script(
        cls,
        script: Path | str,
        *,
        name: str,
        registry: str | None = None,
        registry_secret: Any = None,
        python_version: tuple[int, int] | None = None,
        index_url: str | None = None,
        extra_index_urls: str | list[str] | tuple[str, ...] | None = None,
        pre: bool = False,
        extra_args: str | None = None,
        platform: tuple[Architecture, ...] | None = None,
        secret_mounts: Any = None,
    ) -> Image:
        """Flyte's default image with the requirements in a script's header."""
        base = cls.from_debian_base(python_version, None, True, registry, registry_secret, name, platform)
        return base._with("uv_script", script=str(script), index_url=index_url, pre=pre, extra_args=extra_args)

    @classmethod
    def from_pixi_script(
        cls,
        script: Path | str,
        *,
        name: str,
        registry: str | None = None,
        registry_secret: Any = None,
        environment: str = "default",
        extra_args: str | None = None,
        platform: tuple[Architecture, ...] | None = None,
        secret_mounts: Any = None,
    ) -> Image:
        """Flyte's default image with the requirements in a script's header."""
        base = cls.from_debian_base(None, None, True, registry, registry_secret, name, platform)
        return base._with("pixi_script", script=str(script), environment=environment, extra_args=extra_args)

    def clone(
        self,
        registry: str | None = None,
        registry_secret: Any = None,
        name: str | None = None,
        base_image: str | None = None,
        python_version: tuple[int, int] | None = None,
        addl_layer: Layer | None = None,
        extendable: bool | None = None,
        platform: Architecture | tuple[Architecture, ...] | None = None,
    ) -> Image:
        """The same image under another name or registry."""
        return replace(
            self,
            registry=registry or self.registry,
            name=name or self.name,
            base_image=base_image or self.base_image,
            python_version=python_version or self.python_version,
            extendable=self.extendable if extendable is None else extendable,
            platform=self.platform if platform is None else _platforms(platform),
            _is_cloned=True,
            _layers=self._layers + ((addl_layer,) if addl_layer else ()),
            _image_registry_secret=registry_secret or self._image_registry_secret,
        )

    # -- layers ----------------------------------------------------------------------------------------------------

    def _with(self, kind: str, **settings: Any) -> Image:
        if not self.extendable:
            raise ValueError("this image takes no layers: make it one that does with .clone(extendable=True)")
        layer = Layer(kind, tuple((key, value) for key, value in settings.items() if value not in (None, False)))
        return replace(self, _layers=(*self._layers, layer))

    def with_pip_packages(
        self,
        *packages: str,
        index_url: str | None = None,
        extra_index_urls: str | list[str] | tuple[str, ...] | None = None,
        pre: bool = False,
        extra_args: str | None = None,
        secret_mounts: Any = None,
    ) -> Image:
        """Python packages."""
        return self._with("pip_packages", packages=packages, index_url=index_url, pre=pre, extra_args=extra_args)

    def with_apt_packages(self, *packages: str, secret_mounts: Any = None) -> Image:
        """Packages of the system."""
        return self._with("apt_packages", packages=packages)

    def with_commands(self, commands: list[str], secret_mounts: Any = None) -> Image:
        """Commands to execute."""
        return self._with("commands", commands=tuple(commands))

    def with_env_vars(self, env_vars: dict[str, str]) -> Image:
        """Environment variables."""
        return self._with("env_vars", env_vars=tuple(env_vars.items()))

    def with_workdir(self, workdir: str) -> Image:
        """The working directory."""
        return self._with("workdir", workdir=workdir)

    def with_requirements(
        self,
        file: str | Path,
        index_url: str | None = None,
        extra_index_urls: str | list[str] | tuple[str, ...] | None = None,
        pre: bool = False,
        extra_args: str | None = None,
        secret_mounts: Any = None,
    ) -> Image:
        """The packages of a requirements file."""
        return self._with("requirements", file=str(file), index_url=index_url, pre=pre, extra_args=extra_args)

    def with_uv_project(
        self,
        pyproject_file: str | Path,
        uvlock: Path | None = None,
        index_url: str | None = None,
        extra_index_urls: list[str] | tuple[str, ...] | None = None,
        pre: bool = False,
        extra_args: str | None = None,
        secret_mounts: Any = None,
        project_install_mode: Literal["dependencies_only", "install_project"] = "dependencies_only",
    ) -> Image:
        """The packages of a project of uv."""
        return self._with("uv_project", file=str(pyproject_file), mode=project_install_mode, extra_args=extra_args)

    def with_poetry_project(
        self,
        pyproject_file: str | Path,
        poetry_lock: Path | None = None,
        extra_args: str | None = None,
        secret_mounts: Any = None,
        project_install_mode: Literal["dependencies_only", "install_project"] = "dependencies_only",
    ) -> Image:
        """The packages of a project of Poetry."""
        return self._with("poetry_project", file=str(pyproject_file), mode=project_install_mode, extra_args=extra_args)

    def with_pixi_project(
        self,
        manifest_file: str | Path,
        pixi_lock: Path | None = None,
        environment: str = "default",
        extra_args: str | None = None,
        secret_mounts: Any = None,
        project_install_mode: Literal["dependencies_only", "install_project"] = "dependencies_only",
    ) -> Image:
        """The packages of a project of Pixi."""
        return self._with("pixi_project", file=str(manifest_file), environment=environment, extra_args=extra_args)

    def with_source_file(self, src: Path | list[Path], dst: str = ".") -> Image:
        """Files of this machine."""
        files = src if isinstance(src, list) else [src]
        return self._with("source_file", src=tuple(map(str, files)), dst=dst)

    def with_source_folder(self, src: Path, dst: str = ".", copy_contents_only: bool = False) -> Image:
        """A directory of this machine."""
        return self._with("source_folder", src=str(src), dst=dst, copy_contents_only=copy_contents_only)

    def with_code_bundle(
        self, copy_style: Literal["loaded_modules", "all"] = "loaded_modules", dst: str = "."
    ) -> Image:
        """The code."""
        return self._with("code_bundle", copy_style=copy_style, dst=dst)

    def with_dockerignore(self, path: Path) -> Image:
        """A file that says what the build leaves out."""
        return self._with("dockerignore", path=str(path))

    def with_local_v2(self) -> Image:
        """A local build of Flyte."""
        return self._with("local_v2")

    def with_local_v2_plugins(self, plugins: str | list[str] | None = None) -> Image:
        """Local builds of Flyte's plugins."""
        return self._with("local_v2_plugins", plugins=tuple([plugins] if isinstance(plugins, str) else plugins or ()))

    def with_local_rs_controller(self) -> Image:
        """A local build of Flyte's controller."""
        return self._with("local_rs_controller")

    # -- names -----------------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Nothing to check: the image is not built here."""

    @cached_property
    def uri(self) -> str:
        """The name of the base where there are no layers, else a name that depends on the layers."""
        if self.base_image and not self._layers and not self._is_cloned:
            return self.base_image
        digest = sha256(repr((self.base_image, str(self.dockerfile), self._layers)).encode()).hexdigest()[:32]
        return f"{self.registry + '/' if self.registry else ''}{self.name or 'image'}:{digest}"


def _platforms(value: Architecture | tuple[Architecture, ...] | None) -> tuple[Architecture, ...]:
    if value is None:
        return ("linux/amd64",)
    return (value,) if isinstance(value, str) else tuple(value)


_LAYERS = frozenset({
    "AptPackages", "CodeBundleLayer", "Commands", "CopyConfig", "DockerIgnore", "Env", "PipOption", "PipPackages",
    "PixiProject", "PixiScript", "PoetryProject", "PythonWheels", "Requirements", "UVProject", "UVScript", "WorkDir",
})  # fmt: skip
DIST_FOLDER = Path("dist")
"""Where Flyte's developers build the package."""


def __getattr__(name: str) -> Any:
    # Flyte's classes of layers, for `Image.clone(addl_layer=...)`.
    if name not in _LAYERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return lambda *args, **settings: Layer(name, tuple({**settings, **({"args": args} if args else {})}.items()))
