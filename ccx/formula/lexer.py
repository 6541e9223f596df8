"""The words of a formula's text: how a name is written, and the tokens that `parse` reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ccx.errors import InputError

_KEYWORDS = frozenset({"AND", "OR", "NOT"})
_WORD = r'[^\s()"]+'
_BARE_NAME = re.compile(rf"{_WORD}(?: {_WORD})*")
# Possessive quantifiers: an unclosed quote must not backtrack. The last alternative is that quote.
_TOKEN = re.compile(rf'[()]|"(?:[^"\\]++|\\.)*+"|{_WORD}|"', re.DOTALL)
_ESCAPE = re.compile(r'\\(?:(["\\])|u\{([0-9a-fA-F]{1,6})\}|.)', re.DOTALL)


class Token(NamedTuple):
    """A parenthesis, keyword, name or the end: its kind, its text (a name as it is meant) and where it starts."""

    kind: str
    text: str
    position: int


def written(name: str) -> str:
    """Return the name as it stands in a formula: bare where that is unambiguous, otherwise in quotes."""
    # isprintable also keeps every white space but " " out of bare names, and lone surrogates out of all text.
    if name.isprintable() and _BARE_NAME.fullmatch(name) and _KEYWORDS.isdisjoint(name.split(" ")):
        return name
    return '"' + "".join(map(_escaped, name)) + '"'


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a formula's text; the last one is of kind "end"."""
    words: list[str] = []  # of a bare name that may go on
    start = 0
    for match in _TOKEN.finditer(text):
        piece = match[0]
        is_quoted = piece[0] == '"'
        if not is_quoted and piece not in "()" and piece not in _KEYWORDS:
            start = start if words else match.start()
            words.append(piece)
            continue
        if words:
            yield Token("name", " ".join(words), start)
            words = []
        if is_quoted:
            yield Token("name", _unquoted(piece, match.start()), match.start())
        else:
            yield Token(piece, piece, match.start())
    if words:
        yield Token("name", " ".join(words), start)
    yield Token("end", "", len(text))


def syntax_error(wanted: str, at: Token) -> InputError:
    """Return the error for a text that should go on with `wanted` at the given token."""
    return InputError(
        argument="formula",
        wanted=f"{wanted} at character {at.position + 1}",
        got="the end of the text" if at.kind == "end" else repr(clip(at.text)),
        remedy="write (a AND b), (a OR b) or NOT a, and put names with other signs in double quotes",
    )


def clip(text: str, n_characters: int = 60) -> str:
    """Shorten a text for a message."""
    return text if len(text) <= n_characters else text[: n_characters - 1] + "…"


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\u{{{ord(character):x}}}"


def _unquoted(piece: str, position: int) -> str:
    if piece == '"':
        raise InputError(
            argument="formula",
            wanted=f'a closing " for the name that opens at character {position + 1}',
            got="the end of the text",
            remedy='close the name; a quote inside it is written \\"',
        )

    def decoded(escape: re.Match[str]) -> str:
        if escape[1]:
            return escape[1]
        code_point = int(escape[2], 16) if escape[2] else -1
        if not 0 <= code_point <= 0x10FFFF:
            token = Token("escape", escape[0], position + 1 + escape.start())
            raise syntax_error(wanted='one of the escapes \\" \\\\ \\u{hex}', at=token)
        return chr(code_point)

    return _ESCAPE.sub(decoded, piece[1:-1])
