"""Models of a user's own code: a function in a file, which runs only if the user names it.

A model id, a saved classifier and a TOML file can refer to such a function. They never make it
run: `load_model` compares the reference with the functions that its caller gave.
"""

import inspect
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeAlias, cast

import torch
from PIL import Image
from torch import Tensor, nn

from .._io import read_bytes
from .._text import first_names
from ._quiet import one_line
from .allowed_arguments import OWN_FILE_NAME, OwnArchitecture, check_arguments
from .checkpoints import WeightsKind, load_weights, read_state_dict
from .classifier import Classifier, EncoderSpec, Head
from .custom_module import CustomEncoder, CustomTransform
from .family import OWN_FAMILY
from .head_extraction import HeadWarning
from .weight_names import fit_names

_OPTION = "--model-from"
_FAILURES = (Exception, SystemExit)  # of code that may do anything


@dataclass(frozen=True)
class OwnCode:
    """Function without arguments in a user's file, which returns a model, and the file's hash.

    To make such an object reads the file and runs nothing.
    """

    path: Path
    function: str
    sha256: str

    @classmethod
    def from_text(cls, text: str) -> "OwnCode":
        """Read ``FILE.py:FUNCTION``."""
        file, _, function = text.rpartition(":")
        path = Path(file)
        if not (path.suffix == ".py" and function.isidentifier()):
            raise ValueError(
                f"{_OPTION} must be FILE.py:FUNCTION, got {text!r}: give the file of your code and "
                "the function in it that returns the model."
            )
        if not re.fullmatch(OWN_FILE_NAME, path.name):
            raise ValueError(
                f"{path.name!r} has other characters than letters, digits, spaces and .()+-: "
                "rename the file."
            )
        if not path.exists():
            raise FileNotFoundError(f"No file {path}: check the path of {_OPTION} {text}.")
        return cls(path, function, sha256(read_bytes(path)).hexdigest())

    def __str__(self) -> str:
        """Return ``FILE.py:FUNCTION``."""
        return f"{self.path}:{self.function}"

    def resolve(self) -> "OwnCode":
        """Return the same function by an absolute path."""
        return replace(self, path=self.path.resolve())

    @property
    def spec(self) -> EncoderSpec:
        """Description of its encoder, which a saved classifier holds."""
        architecture = {"source": self.path.name, "function": self.function, "sha256": self.sha256}
        return EncoderSpec(OWN_FAMILY, architecture, code=self)

    def build(self, name: str = "") -> Classifier:
        """Run the function, always under one seed; return its classifier."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return self._as_classifier(self._call(), name or str(self))

    def build_from_file(self, name: str, path: Path, weights: WeightsKind | None) -> Classifier:
        """Run the function, and return its classifier with the weights of a file."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = self._call()
        state = read_state_dict(path, weights=weights)
        if isinstance(model, nn.Module):
            own_names = model.state_dict().keys()
            load_weights(model, fit_names(state, own_names, source=path), model_name=name)
            return self._as_classifier(model, name)
        classifier = self._as_classifier(model, name)
        return _with_weights(classifier, state, path)

    def build_random_encoder(self) -> nn.Module:
        """Run the function, and draw all weights of its encoder anew."""
        encoder = self._as_classifier(self._call(), str(self)).encoder
        if fixed := _reset_weights(encoder):
            raise ValueError(
                f"{self} gives no untrained control: {len(fixed)} weights ({first_names(fixed)}) "
                "are of modules without a reset_parameters() that draws them: add one."
            )
        return encoder

    def load_function(self) -> Callable[[], object]:
        """Run the file, once in a process, and return its function."""
        module = _run_file(self.path.resolve(), self.sha256)
        function = getattr(module, self.function, None)
        if not callable(function):
            names = [name for name, value in vars(module).items() if _is_own(value, module)]
            raise ValueError(
                f"{self.path} has no function {self.function!r}, but {first_names(names) or 'none'}"
                f": give {_OPTION} {self.path}:FUNCTION."
            )
        if required := _required_arguments(function):
            raise ValueError(
                f"{self} takes the arguments {', '.join(required)}: give a function without any."
            )
        return cast("Callable[[], object]", function)

    def _call(self) -> object:
        function = self.load_function()
        with _sibling_imports(self.path.resolve().parent), _ignored_head_warnings():
            try:
                return function()
            except _FAILURES as error:
                raise ValueError(f"{self} failed ({_describe(error)}): correct it.") from error

    def _as_classifier(self, model: object, name: str) -> Classifier:
        """Return what the function returned as a classifier that knows its code."""
        if isinstance(model, nn.Module):
            with _ignored_head_warnings():
                model = Classifier.from_module(model, name=name)
        if not isinstance(model, Classifier):
            raise ValueError(
                f"{self} returned a {type(model).__name__}: return a torch.nn.Module, or an "
                "earmark.Classifier."
            )
        transform = model.transform
        if isinstance(transform, CustomTransform):
            transform = _OwnTransform(self, transform)
        return replace(model, name=name, transform=transform, spec=self.spec)


ModelFrom: TypeAlias = str | Path | OwnCode | Sequence[str | Path | OwnCode] | None
"""Functions that a user lets run: ``FILE.py:FUNCTION``, or several."""


def read_model_from(model_from: ModelFrom) -> tuple[OwnCode, ...]:
    """Return the functions that a user lets run; none of them runs here."""
    if model_from is None:
        return ()
    several = [model_from] if isinstance(model_from, str | Path | OwnCode) else model_from
    codes = (
        code if isinstance(code, OwnCode) else OwnCode.from_text(str(code)) for code in several
    )
    return tuple({(code.path.resolve(), code.function): code for code in codes}.values())


def load_own(
    name: str,
    file: str | None = None,
    *,
    weights: WeightsKind | None = None,
    model_from: Sequence[OwnCode] = (),
) -> Classifier:
    """Load ``own:FILE.py:FUNCTION``, with the function's weights or those of a file."""
    code = find_code(name, model_from)
    title = f"{OWN_FAMILY}:{name}"
    if file is None:
        return code.build(title)
    path = Path(file)
    classifier = code.build_from_file(f"{title},{file}", path, weights)
    return replace(classifier, pretraining=path.stem)


def find_code(name: str, codes: Sequence[OwnCode]) -> OwnCode:
    """Return the function that a model id names, if the user lets it run."""
    file, _, function = name.rpartition(":")
    wanted = Path(file).resolve(), function
    for code in codes:
        if (code.path.resolve(), code.function) == wanted:
            return code
    raise ValueError(
        f"The model {OWN_FAMILY}:{name} runs code of {file}: add {_OPTION} {name} if you trust it."
    )


def find_saved_code(
    architecture: Mapping[str, Any], codes: Sequence[OwnCode], *, source: object
) -> OwnCode:
    """Return the function that a saved classifier refers to, if the user lets it run."""
    check_arguments(architecture, OwnArchitecture, source=f"The reference to code in {source}")
    file, function, hashed = (architecture[key] for key in ("source", "function", "sha256"))
    named = [code for code in codes if (code.path.name, code.function) == (file, function)]
    for code in named:
        if code.sha256 == hashed:
            return code
    if named:
        raise ValueError(
            f"The source changed: {source} was saved with a {file} of SHA-256 {hashed[:16]}..., "
            f"and {named[0].path} has {named[0].sha256[:16]}...: give the file of that time."
        )
    raise ValueError(
        f"{source} holds no code, and needs that of {file}: add {_OPTION} {file}:{function}, with "
        "the path of your copy, if you trust it."
    )


def build_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """Refuse to build an encoder from a reference alone."""
    raise ValueError(
        f"The encoder of {dict(architecture)} is built by its function alone: load the model with "
        "model_from='FILE.py:FUNCTION'."
    )


def _with_weights(classifier: Classifier, state: Mapping[str, Tensor], path: Path) -> Classifier:
    """Return a classifier with the weights of a state, and its head where the state has it."""
    encoder = classifier.encoder
    module, place = encoder, ""
    if isinstance(encoder, CustomEncoder):
        module, place = encoder.module, encoder.head_path
    if "+" in place or "," in place:
        raise ValueError(
            f"{classifier.name} averages two heads: return the torch.nn.Module itself, so that "
            "both get their weights."
        )
    whole = module
    classes, features = classifier.head.weight.shape
    has_bias = classifier.head.bias is not None
    linear = nn.utils.skip_init(nn.Linear, features, classes, bias=has_bias)  # draws nothing
    if place:
        whole = deepcopy(module)
        whole.set_submodule(place, linear)
    fitted = fit_names(state, whole.state_dict().keys(), source=path)
    if place and (kernel := fitted.get(f"{place}.weight")) is not None:
        fitted[f"{place}.weight"] = kernel.flatten(1)  # of a 1 x 1 convolution
    load_weights(whole, fitted, model_name=classifier.name)
    if not place:
        return classifier
    kept = module.state_dict().keys()
    module.load_state_dict({k: value for k, value in whole.state_dict().items() if k in kept})
    own = dict(linear.named_parameters())
    bias = own["bias"].detach() if has_bias else None
    head = Head(own["weight"].detach(), bias, classifier.head.normalizes)
    return replace(classifier, head=head)


def _reset_weights(encoder: nn.Module) -> list[str]:
    """Draw all weights anew; return the names of those that no module draws."""
    fixed: list[str] = []
    with torch.no_grad():
        for path, part in encoder.named_modules():
            own = [name for name, _ in part.named_parameters(recurse=False)]
            # nn.MultiheadAttention's has an underscore
            methods = ("reset_parameters", "_reset_parameters")
            found = [getattr(part, name) for name in methods if hasattr(part, name)]
            if found:
                found[0]()
            else:
                fixed += [f"{path}.{name}".removeprefix("module.") for name in own]
    return fixed


class _OwnTransform:
    """Transform of a user's file, which another process can unpickle."""

    def __init__(self, code: OwnCode, transform: CustomTransform) -> None:
        self._code = code
        self._transform = transform

    def __call__(self, image: Image.Image) -> Any:
        return self._transform(image)

    def __repr__(self) -> str:
        return repr(self._transform)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_transform, (self._code.resolve(), pickle.dumps(self._transform))


def _restore_transform(code: OwnCode, content: bytes) -> _OwnTransform:
    code.load_function()
    return _OwnTransform(code, pickle.loads(content))  # noqa: S301 (of the parent process)


@cache
def _run_file(path: Path, hashed: str) -> ModuleType:
    """Run a file of a known hash as a module that no import finds."""
    from . import _torchvision_compat  # noqa: F401 # pyright: ignore[reportUnusedImport]

    content = read_bytes(path)
    if sha256(content).hexdigest() != hashed:
        raise ValueError(f"{path} was changed while earmark ran: run the same command again.")
    name = f"_earmark_own_{sha256(f'{path}:{hashed}'.encode()).hexdigest()[:16]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        with _sibling_imports(path.parent):
            exec(compile(content, str(path), "exec"), vars(module))  # noqa: S102 (the user's own)
    except _FAILURES as error:
        del sys.modules[name]
        raise ValueError(f"{path} cannot be imported ({_describe(error)}): correct it.") from error
    return module


class _SourceLoader(SourceFileLoader):
    """Loader of a module's source, whatever compiled code stands beside it."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _SourceFinder(MetaPathFinder):
    """Finder of the modules and packages of a folder by their ``.py`` files alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of the folder is."""
        places = None if path is None else [*path]
        for place in [str(self.folder)] if places is None else places:
            if not Path(place).is_relative_to(self.folder):
                continue
            spec = FileFinder(place, (_SourceLoader, [".py"])).find_spec(fullname, target)
            if spec and (spec.loader or not PathFinder.find_spec(fullname, places)):
                return spec  # a folder without code does not hide an installed package
        return None


_SIBLINGS: dict[Path, dict[str, ModuleType]] = {}  # modules beside users' files, by folder


@contextmanager
def _sibling_imports(folder: Path) -> Generator[None]:
    """Let code import what stands beside it, and not its namesakes of other folders."""
    for other in _SIBLINGS.keys() - {folder}:
        for name in _SIBLINGS[other]:
            sys.modules.pop(name, None)
    siblings = _SIBLINGS.setdefault(folder, {})
    sys.modules.update(siblings)
    before = {*sys.modules}
    finder = _SourceFinder(folder)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        beside = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
        for name in {*sys.modules} - before:
            file = getattr(sys.modules[name], "__file__", None)
            if name.partition(".")[0] in beside and file and Path(file).is_relative_to(folder):
                siblings[name] = sys.modules[name]


@contextmanager
def _ignored_head_warnings() -> Generator[None]:
    """Ignore warnings about a head that weights of a file may replace; loading checks it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeadWarning)
        yield


def _required_arguments(function: Callable[..., object]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of builtins; calling them says what is wrong
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty and parameter.kind not in optional
    ]


def _is_own(value: object, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module.__name__


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
