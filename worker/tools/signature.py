"""A function's arguments as its type hints say: their JSON schema, and how they are checked."""

import inspect
import logging
import typing
from collections.abc import Callable, Mapping
from inspect import Parameter
from types import FunctionType, SimpleNamespace
from typing import Annotated, Any, Final, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from rejoin.shared.errors import ToolError
from rejoin.shared.events import dumps
from rejoin.worker.tools.base import Call

_MOST_FAULTS: Final = 10
_MOST_FAULT_CHARS: Final = 200
_UNFIT_KINDS: Final = {
    Parameter.POSITIONAL_ONLY: "is positional only: a model names its arguments",
    Parameter.VAR_POSITIONAL: "takes any number of arguments: take a list",
    Parameter.VAR_KEYWORD: "takes arguments of any name: take a dict, or name them",
}

_log = logging.getLogger(__name__)


class Signature:
    """The arguments of a function, all of them named; one that is a `Call` is not the model's."""

    def __init__(self, function: FunctionType, descriptions: Mapping[str, str]) -> None:
        """Read it; `descriptions` are those that no `Field` gives.

        Raises:
            TypeError: no JSON can be the function's arguments; the text says which and why.
        """
        parameters = inspect.signature(function).parameters
        hints = _hints(function)
        self._calls = [name for name in parameters if hints.get(name) is Call]
        # By a number: a model's field may not be called `_x`, or `copy`; an argument may.
        self._fields: dict[str, str] = {}
        self._required: set[str] = set()
        definitions: dict[str, tuple[object, object]] = {}
        for name, parameter in parameters.items():
            _check_parameter(parameter, first=not definitions)
            if name in self._calls:
                continue
            _check_hint(name, hints.get(name))
            field = f"a{len(self._fields)}"
            self._fields[field] = name
            if parameter.default is Parameter.empty:
                self._required.add(field)
            hint = hints.get(name, Any)
            about = None if _says(hint) else descriptions.get(name)
            definitions[field] = _definition(parameter, hint, about)
        self._model = _model(definitions, self._fields)
        self.schema: Mapping[str, object] = _schema(self._model)

    def bind(self, arguments: Mapping[str, object], call: Call) -> dict[str, object]:
        """Return what to call the function with.

        Raises:
            ToolError: the arguments do not fit; the text says where.
        """
        held = self._validate(arguments)
        bound: dict[str, object] = dict.fromkeys(self._calls, call)
        for field, name in self._fields.items():
            # A default is Python's own: what a function has by itself needs no check.
            if field in held.model_fields_set or field in self._required:
                bound[name] = getattr(held, field)
        return bound

    def _validate(self, arguments: Mapping[str, object]) -> BaseModel:
        try:
            return self._model.model_validate_json(dumps(dict(arguments)))
        except ValidationError as error:
            raise ToolError(f"the arguments do not fit: {_faults(error)}") from error
        except Exception as error:
            # A validator of the user's own may raise anything.
            _log.warning("arguments could not be checked", exc_info=error)
            text = f"the arguments could not be checked: {type(error).__name__}: {error}"
            raise ToolError(text[:_MOST_FAULT_CHARS]) from error


class _Schema(GenerateJsonSchema):
    """Without titles, which only say names again, and without a word on what it leaves out."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _hints(wrapped: FunctionType) -> dict[str, object]:
    function = cast(FunctionType, inspect.unwrap(wrapped))
    # What it returns is nobody's concern, and may be known to type checkers alone.
    told = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    holder = SimpleNamespace(__annotations__=told)
    try:
        return typing.get_type_hints(
            cast(Callable[..., object], holder), function.__globals__, include_extras=True
        )
    except NameError as error:
        raise TypeError(f"a type hint cannot be resolved: {error}") from error


def _check_parameter(parameter: Parameter, *, first: bool) -> None:
    if parameter.kind in _UNFIT_KINDS:
        raise TypeError(f"`{parameter}` {_UNFIT_KINDS[parameter.kind]}")
    if first and parameter.name in {"self", "cls"} and parameter.annotation is Parameter.empty:
        raise TypeError("it is a method: decorate a function")
    if isinstance(parameter.default, FieldInfo):
        mend = "write Annotated[TYPE, Field(...)] = DEFAULT"
        raise TypeError(f"`{parameter.name}` has a Field for its default: {mend}")


def _check_hint(name: str, hint: object) -> None:
    # Within another type it would be the model's to fill in.
    if Call in typing.get_args(hint):
        raise TypeError(
            f"`{name}`: write `{name}: Call`, nothing around it: each run is given its call"
        )


def _says(hint: object) -> bool:
    """Whether a hint has a description of its own."""
    return any(
        isinstance(told, FieldInfo) and told.description
        for told in getattr(hint, "__metadata__", ())
    )


def _definition(parameter: Parameter, hint: object, about: str | None) -> tuple[object, object]:
    name, default = parameter.name, parameter.default
    field = Field(alias=name, validation_alias=name, serialization_alias=name)
    if about:
        field = Field(
            alias=name, validation_alias=name, serialization_alias=name, description=about
        )
    return Annotated[hint, field], ... if default is Parameter.empty else default


def _model(
    definitions: Mapping[str, tuple[object, object]], names: Mapping[str, str]
) -> type[BaseModel]:
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False, protected_namespaces=())
    try:
        made: type[BaseModel] = create_model(
            "Arguments", __config__=config, **cast(dict[str, Any], dict(definitions))
        )
    except (PydanticUserError, NameError) as error:
        which = _which(definitions, names, config)
        raise TypeError(f"{which} is no type that JSON has: {_first_line(error)}") from error
    return made


def _first_line(error: Exception) -> str:
    # What follows is pydantic's advice for classes of its own.
    return str(error).strip().partition("\n")[0]


def _which(
    definitions: Mapping[str, tuple[object, object]], names: Mapping[str, str], config: ConfigDict
) -> str:
    """The first argument whose type pydantic cannot take."""
    for field, definition in definitions.items():
        try:
            create_model("Argument", __config__=config, **cast(Any, {field: definition}))
        except (PydanticUserError, NameError):
            return f"the type of `{names[field]}`"
    return "the type of an argument"


def _schema(model: type[BaseModel]) -> Mapping[str, object]:
    try:
        schema = model.model_json_schema(schema_generator=_Schema)
    except PydanticUserError as error:
        raise TypeError(f"its arguments have no JSON schema: {error.message}") from error
    del schema["title"]
    schema.setdefault("properties", {})
    for name, inner in schema.get("$defs", {}).items():
        if inner.get("title") == name:
            del inner["title"]
    return schema


def _faults(error: ValidationError) -> str:
    told = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in fault["loc"])
        told.append(f"{where}: {fault['msg']}"[:_MOST_FAULT_CHARS] if where else fault["msg"])
    more = len(told) - _MOST_FAULTS
    return "; ".join(told[:_MOST_FAULTS]) + (f"; and {more} more" if more > 0 else "")
