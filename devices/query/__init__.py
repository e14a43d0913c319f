"""The filter language for nodes: `parse` reads it, `compile_query` gives a Django condition."""

from devices.query.fields import compile_query
from devices.query.language import QueryError, Term, parse

__all__ = ["QueryError", "Term", "compile_query", "parse"]
