"""What the sections of a configuration are made of: fields that convert and check, and rules between them."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import attrs

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError
from backpressure._model.units import Stated

__all__ = [
    "CODE_ONLY",
    "DAY",
    "HOUR",
    "MINUTE",
    "NONE_TEXT",
    "PASSWORD",
    "RIVALS",
    "TICK",
    "CodeOnly",
    "Rules",
    "Section",
    "Unset",
    "UnsetInteger",
    "boolean",
    "broken_rules",
    "check_field",
    "checked",
    "code_only",
    "converted",
    "duration",
    "fail",
    "fraction",
    "instance",
    "integer",
    "is_number",
    "optional",
    "optional_duration",
    "optional_text",
    "ordered",
    "seconds_of",
]

TICK = 0.010
MINUTE = 60.0
HOUR = 3_600.0
DAY = 86_400.0
_SECOND_NS = 1_000_000_000
_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": _SECOND_NS,
    "m": 60 * _SECOND_NS,
    "h": 3_600 * _SECOND_NS,
}
_DOUBT = "doubt_above"
#: A password of a user in a URL, or as a word of libpq.
PASSWORD = re.compile(r"://[^/@\s]*:[^/\s]*@|[?&\s]password\s*=", re.IGNORECASE)
#: The key, in the metadata of a field, of the text that stands for ``None`` where it differs from what is left out.
NONE_TEXT = "none_text"
_NONE = "none"
_PART = r"(\d{1,20}(?:\.\d{1,20})?)(ns|us|µs|ms|s|m|h)"

# A field's name, and a function that returns True, or the rule that is broken, or an error that blames something inside
# of the field. It is called with the value alone, or with the whole object (or with its valid part).
Rules = tuple[tuple[str, Callable[[Any], bool | str | ConfigurationError]], ...]


class Unset:
    """A default that nobody has set, so that a value below it shows through when tables are laid over one another."""

    __slots__ = ()


class UnsetInteger(Unset, int):
    __slots__ = ()


class _UnsetSeconds(Unset, float):
    __slots__ = ()


class _UnsetFraction(Unset, Fraction):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"Fraction({self.numerator}, {self.denominator})"


def fail(owner: object, name: str, value: object, rule: str) -> ConfigurationError:
    prefix = getattr(owner, "_path", "")
    path = f"{prefix}.{name}" if prefix else name
    return ConfigurationError(f"{path} is {shown(value)}: {rule}", field=path, value=value)


def is_number(value: object) -> bool:
    # Not math.isfinite, which overflows on integers that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def _to_seconds(value: object, owner: object, field: "attrs.Attribute[Any]") -> float:
    if isinstance(value, _UnsetSeconds | Stated):
        return value
    if isinstance(value, timedelta):
        return _stated(value.total_seconds(), field)
    if isinstance(value, str):
        seconds = seconds_of(value)
        if seconds is not None:
            return _stated(seconds, field)
    elif is_number(value):
        if isinstance(value, int) and abs(value) > DAY:
            rule = "durations are seconds; Go writes nanoseconds, so divide by 1_000_000_000"
            if abs(value) < _SECOND_NS:
                rule = f'milliseconds? {rule}; for milliseconds write "{value}ms"'
            raise fail(owner, field.name, value, rule)
        return float(value)  # type: ignore[arg-type]
    rule = 'give seconds, a timedelta or a string such as "250ms", "5s" or "1m"'
    raise fail(owner, field.name, value, rule)


def seconds_of(text: str) -> float | None:
    """Return the seconds of a text such as ``"1m30s"``; ``None`` if it is no duration."""
    if not re.fullmatch(rf"(?:{_PART})+", text.strip()):
        return None
    # Exactly, so that "9ms" is the same float as 0.009 and lies on the same side of a limit.
    ns = sum(Fraction(number) * _UNITS_NS[unit] for number, unit in re.findall(_PART, text))
    return float(ns / _SECOND_NS)


def _stated(seconds: float, field: "attrs.Attribute[Any]") -> float:
    return Stated(seconds) if _is_doubtful(seconds, field) else seconds


def _is_doubtful(seconds: float, field: "attrs.Attribute[Any]") -> bool:
    """Tell whether a bare number is longer than anybody wants; whole hours are believed, as in ``24 * 3600``."""
    return seconds > field.metadata.get(_DOUBT, math.inf) and bool(seconds % HOUR)


def _to_fraction(value: object, owner: object, field: "attrs.Attribute[Any]") -> Fraction:
    if isinstance(value, Fraction):
        return value
    # An exponent in text could ask for a number of a billion digits.
    if (isinstance(value, str) and re.fullmatch(r"-?[\d./]{1,24}", value)) or is_number(value):
        try:
            # From the decimal text, so that 0.1 means one tenth and not its nearest binary float.
            return Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            pass
    raise fail(owner, field.name, value, 'give a positive number or a fraction such as "1/2"')


def converted(function: Callable[..., Any], **options: Any) -> Any:
    return attrs.field(converter=attrs.Converter(function, takes_self=True, takes_field=True), **options)


def duration(default: float, *, doubt_above: float = HOUR) -> Any:
    """Return a field of seconds; bare numbers above `doubt_above` are hardly meant as seconds, unless whole hours."""
    return converted(_to_seconds, default=_UnsetSeconds(default), metadata={_DOUBT: doubt_above})


def optional_duration(*, doubt_above: float = HOUR) -> Any:
    """Return a field of seconds or ``None``, for which files write ``"none"``."""
    return converted(_unless_none(_to_seconds), default=None, metadata={_DOUBT: doubt_above, NONE_TEXT: _NONE})


def optional_text(check: Callable[[Any], bool], rule: str) -> Any:
    """Return a field of text or ``None``, for which files write ``"none"``."""
    convert = attrs.Converter(_unless_none(lambda value, *_: value), takes_self=True, takes_field=True)
    return checked(None, check, rule, converter=convert, metadata={NONE_TEXT: _NONE})


def _unless_none(convert: Callable[..., Any]) -> Callable[..., Any]:
    def converter(value: object, owner: object, field: "attrs.Attribute[Any]") -> Any:
        return None if value is None or (isinstance(value, str) and value == _NONE) else convert(value, owner, field)

    return converter


def fraction(default: Fraction) -> Any:
    return converted(_to_fraction, default=_UnsetFraction(default))


def checked(default: Any, check: Callable[[Any], bool], rule: str, **options: Any) -> Any:
    def validate(owner: object, field: "attrs.Attribute[Any]", value: object) -> None:
        if not check(value):
            raise fail(owner, field.name, value, rule)

    return attrs.field(default=default, validator=validate, **options)


def integer(default: Any, low: int, high: int | None = None) -> Any:
    def check(value: object) -> bool:
        return (
            isinstance(value, int) and not isinstance(value, bool) and low <= value and (high is None or value <= high)
        )

    rule = f"give an integer from {low} to {high}" if high is not None else f"give an integer of at least {low}"
    return checked(default, check, rule)


def boolean(*, default: bool) -> Any:
    return checked(default, lambda value: isinstance(value, bool), "give true or false")


def instance(kind: type[Any], default: Any) -> Any:
    return checked(default, lambda value: isinstance(value, kind), f"give {_a(kind)}")


def optional(kind: type[Any]) -> Any:
    return checked(None, lambda value: value is None or isinstance(value, kind), f"give {_a(kind)} or None")


def _a(kind: type[Any]) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


class CodeOnly(NamedTuple):
    """What a field takes that no file can hold, in words; and whether a value may have been meant for it."""

    form: str
    may_be: Callable[[object], bool]


#: Fields that say the same as another: of the two, the one that is set in the upper layer counts.
RIVALS: dict[str, str] = {}
#: The key of a `CodeOnly` in the metadata of a field.
CODE_ONLY = "code_only"


def code_only(
    default: Any, check: Callable[[Any], bool], rule: str, *, form: str, may_be: Callable[[object], bool]
) -> Any:
    return checked(default, check, rule, metadata={CODE_ONLY: CodeOnly(form, may_be)})


def check_field(cls: type[Any], field: "attrs.Attribute[Any]", value: object) -> Any:
    """Convert and validate one value as building `cls` would, without the rest of the object."""
    converter: Any = field.converter
    is_adapted = isinstance(converter, attrs.Converter)
    if is_adapted:
        value = converter.converter(value, *(cls,) * converter.takes_self, *(field,) * converter.takes_field)
    elif converter is not None:
        value = converter(value)
    if field.validator is not None:
        field.validator(cls, field, value)
    return value


def broken_rules(cls: type[Any], values: Any) -> Iterator[ConfigurationError]:
    """Yield the first broken rule of each field: first rules about one value, then rules between valid values.

    In between, fields of `values` that nobody has set follow those that they depend on. Values that break a rule are
    taken out of `values`; rules about missing values are skipped.
    """
    for name, rule in cls._own_rules:
        if (value := getattr(values, name, None)) is not None and (verdict := rule(value)) is not True:
            delattr(values, name)
            yield fail(cls, name, value, verdict)
    for field in attrs.fields(cls):
        value = getattr(values, field.name, None)
        if isinstance(value, float) and not isinstance(value, Stated | Unset) and _is_doubtful(value, field):
            delattr(values, field.name)
            asked = (
                f'milliseconds? durations are seconds: write "{value / 1_000:g}s", or "{value:g}s" if so long is meant'
            )
            yield fail(cls, field.name, value, asked)
    for name, follow in cls._follow.items():
        if isinstance(getattr(values, name, None), Unset):
            try:
                setattr(values, name, _UnsetSeconds(follow(attrs.fields_dict(cls)[name].default, values)))
            except AttributeError:
                delattr(values, name)
    broken: set[str] = set()
    for name, rule in cls._rules:
        try:
            verdict = rule(values)
        except AttributeError:
            continue
        if verdict is not True and name not in broken:
            broken.add(name)
            told = isinstance(verdict, ConfigurationError)
            yield verdict if told else fail(cls, name, getattr(values, name), verdict)


def ordered(low: str, high: str, low_rule: str, high_rule: str, *, strictly: bool = False) -> Rules:
    """Return the rules that field `low` is not above `high`; if nobody has set one of them, the other is to blame."""

    def blames_low(it: Any) -> bool:
        return isinstance(getattr(it, high), Unset) and not isinstance(getattr(it, low), Unset)

    def in_order(it: Any) -> bool:
        lower, higher = getattr(it, low), getattr(it, high)
        return bool(lower < higher or (lower == higher and not strictly))

    return (
        (low, lambda it: in_order(it) or not blames_low(it) or low_rule.format(getattr(it, high))),
        (high, lambda it: in_order(it) or blames_low(it) or high_rule.format(getattr(it, low))),
    )


class Section:
    """What all sections share: a path, rules about their fields and between them, and which field follows which."""

    __slots__ = ()

    _path: ClassVar[str] = ""
    _own_rules: ClassVar[Rules] = ()
    _rules: ClassVar[Rules] = ()
    #: Fields that follow others until they are set, in this order: functions of the default and of the object.
    _follow: ClassVar[Mapping[str, Callable[[float, Any], float]]] = {}

    def __attrs_post_init__(self) -> None:
        cls: type[Any] = type(self)
        values = SimpleNamespace(**{field.name: getattr(self, field.name) for field in attrs.fields(cls)})
        for error in broken_rules(cls, values):
            raise error
        for name in cls._follow:
            object.__setattr__(self, name, getattr(values, name))
