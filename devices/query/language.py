"""The filter language: text to a tree. No Django here.

    profile:stm32l4 site:plant-3 version<1.4 label.line=7 seen<24h not label.tag=canary

Terms that stand side by side must all hold; `and`, `or`, `not` and parentheses as usual. A value with spaces, quotes
or parentheses stands in double quotes, where a backslash keeps the next sign as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError

MAXIMUM_LENGTH = 1000
MAXIMUM_DEPTH = 16
_GRAMMAR = r"""
    start: either
    ?either: all ("or" all)* -> either
    ?all: factor (AND? factor)* -> all
    ?factor: NOT atom -> negation
        | atom
    ?atom: "(" either ")"
        | FIELD OPERATOR VALUE -> term
    AND.3: /and(?=[\s()]|$)/i
    NOT.3: /not(?=[\s()]|$)/i
    OR.3: /or(?=[\s()]|$)/i
    FIELD: /[A-Za-z_][A-Za-z0-9_.\/-]*/
    OPERATOR: /:|!=|<=|>=|=|<|>/
    VALUE: /"(\\.|[^"\\])*"|[^\s()"]+/
    %ignore /\s+/
""".replace('"or"', "_OR").replace("OR.3", "_OR.3")


class QueryError(ValueError):
    """A filter that cannot be read. `position` counts signs from 0 and lies within the text, or at its end.

    `expected` holds what could have stood there, in words; empty where the grammar alone does not tell. `text` is the
    whole filter, as `compile_query` was given it.
    """

    def __init__(self, position: int, message: str, fix: str, *, expected: tuple[str, ...] = ()) -> None:
        super().__init__(position, message, fix)
        self.position, self.message, self.fix, self.expected = position, message, fix, expected
        self.text = ""

    @property
    def line(self) -> int:
        """From 1."""
        return self.text.count("\n", 0, self.position) + 1

    @property
    def column(self) -> int:
        """From 1, within its line."""
        return self.position - (self.text.rfind("\n", 0, self.position) + 1) + 1

    def __str__(self) -> str:
        return f"At position {self.position}: {self.message}; {self.fix}."


@dataclass(frozen=True)
class Term:
    """One comparison. `wildcard` says that an unquoted value ends or begins with, or holds, a star."""

    field: str
    operator: str
    value: str
    wildcard: bool
    position: int
    value_position: int


@dataclass(frozen=True)
class Not:
    part: Tree


@dataclass(frozen=True)
class And:
    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Or:
    parts: tuple[Tree, ...]


Tree = Term | Not | And | Or


class _Builder(Transformer[Token, Any]):
    def start(self, parts: list[Tree]) -> Tree:
        return parts[0]

    def either(self, parts: list[Tree]) -> Tree:
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def all(self, parts: list[Any]) -> Tree:
        kept = tuple(part for part in parts if not isinstance(part, Token))
        return kept[0] if len(kept) == 1 else And(kept)

    def negation(self, parts: list[Any]) -> Tree:
        return Not(parts[1])

    def term(self, parts: list[Token]) -> Tree:
        field, operator, raw = parts
        quoted = raw.startswith('"')
        return Term(
            field=str(field),
            operator=str(operator),
            value=re.sub(r"\\(.)", r"\1", raw[1:-1], flags=re.DOTALL) if quoted else str(raw),
            wildcard=not quoted and "*" in raw,
            position=field.start_pos or 0,
            value_position=raw.start_pos or 0,
        )


_PARSER = Lark(_GRAMMAR, parser="lalr", transformer=_Builder())


def parse(text: str) -> Tree | None:
    """The tree, or None for a text without terms, which every node matches. Raises QueryError and nothing else."""
    if len(text) > MAXIMUM_LENGTH:
        raise QueryError(
            MAXIMUM_LENGTH, f"the filter has {len(text)} signs, at most {MAXIMUM_LENGTH} are read", "shorten it"
        )
    for position, sign in enumerate(text):
        # PostgreSQL keeps no NUL, UTF-8 no half of a surrogate pair.
        if (ord(sign) < 32 and not sign.isspace()) or 0xD800 <= ord(sign) <= 0xDFFF or sign == "\x7f":
            raise QueryError(position, f"the sign U+{ord(sign):04X} cannot be searched for", "remove it")
    if not text.strip():
        return None
    _check_depth(text)
    try:
        return _PARSER.parse(text)  # type: ignore[return-value]
    except (UnexpectedInput, VisitError) as error:
        raise _explain(text, error) from None


def _check_depth(text: str) -> None:
    depth = 0
    for found in re.finditer(r'"(\\.|[^"\\])*"|[()]', text, flags=re.DOTALL):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth > MAXIMUM_DEPTH:
            raise QueryError(found.start(), f"more than {MAXIMUM_DEPTH} parentheses are open", "nest less deeply")


# What a terminal of the grammar is called in an error. An opening parenthesis, `not` and a field all begin a term.
_WORDS = {
    "FIELD": "a term",
    "NOT": "a term",
    "LPAR": "a term",
    "OPERATOR": "an operator: : = != < <= > >=",
    "VALUE": "a value",
    "AND": "and",
    "_OR": "or",
    "RPAR": ")",
    "$END": "the end",
}


def _explain(text: str, error: Exception) -> QueryError:
    example = "write field, operator and value, such as site:plant-3"
    position, expected = len(text), set[str](getattr(error, "expected", ()))
    if isinstance(error, UnexpectedCharacters):
        details: Any = error  # lark types its position as None
        position, expected = details.pos_in_stream or 0, set[str](details.allowed)
    elif isinstance(error, UnexpectedToken) and error.token.type != "$END":
        position = int(error.token.start_pos or 0)
    found = f"“{text[position : position + 12]}”" if position < len(text) else "the end"
    words = tuple(dict.fromkeys(word for name, word in _WORDS.items() if name in expected))
    message, fix = f"a term was expected, not {found}", example
    if "OPERATOR" in expected:
        message = f"after a field an operator was expected, not {found}"
    elif "VALUE" in expected:
        message, fix = f"a value was expected, not {found}", "write a value, in double quotes where it has spaces"
    elif text[position : position + 1] == ")":
        message, fix = "this parenthesis closes none or an empty pair", "remove it"
    elif position >= len(text) and "RPAR" in expected:
        message, fix = "a parenthesis is still open", "close it with )"
    return QueryError(position, message, fix, expected=words)
