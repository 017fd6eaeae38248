"""WordNet's base forms ("men" of "men", "ski" of "skiing") from the files of WordNet 3.0, without nltk.

The rules are those of WordNet's `morphy`: a list of irregular forms, else endings that are taken off. Only results that are in the
dictionary count. nltk's lemmatizer takes the shortest of them, so "vases" becomes "vas" and "men" stays "men".
"""

import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hkd_core.common.errors import UserError

FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
# Endings by part of speech: noun, verb, adjective, adverb. Source: morphy(7WN).
ENDINGS = {
    "n": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "v": "s: ies:y es:e es: ed:e ed: ing:e ing:",
    "a": "er: est: er:e est:e",
    "r": "",
}
HELP = "WordNet 3.0 not found: install it with `apt install wordnet-base` or `python -m nltk.downloader wordnet`"


@dataclass(frozen=True)
class Dictionary:
    """Of each part of speech (n, v, a, r): the known words, and the base forms of irregular ones."""

    known: dict[str, frozenset[str]]
    irregular: dict[str, dict[str, list[str]]]

    def lemma(self, word: str, part: str) -> str:
        """The shortest base form of `word` as that part of speech, or the word itself where the dictionary has none."""
        endings = (pair.split(":") for pair in ENDINGS[part].split())
        forms = self.irregular[part].get(word) or [word.removesuffix(end) + base for end, base in endings if word.endswith(end)]
        return min((form for form in [word, *forms] if form in self.known[part]), key=len, default=word)


@lru_cache(maxsize=4)
def read_dictionary(folder: Path) -> Dictionary:
    """From a folder, or a zip with a folder `wordnet`. Raises UserError naming the file that is missing."""
    known, irregular = {}, {}
    for part, name in FILES.items():
        entries = (line.split(" ", 1)[0] for line in lines_of(folder, f"index.{name}") if not line.startswith(" "))
        known[part] = frozenset(entries)
        fields = (line.split() for line in lines_of(folder, f"{name}.exc"))
        irregular[part] = {words[0]: words[1:] for words in fields if words}
    return Dictionary(known, irregular)


def lines_of(folder: Path, name: str) -> Iterator[str]:
    try:
        if folder.suffix == ".zip":
            content = zipfile.ZipFile(folder).read(f"wordnet/{name}")
        else:
            content = (folder / name).read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder}: cannot read WordNet's {name}: {error}") from error
    yield from content.decode("utf-8", "replace").splitlines()


def places() -> Iterator[Path]:
    """Where WordNet's files may lie: its own variables, Debian's folder, then the data folders of nltk."""
    for variable, below in (("WNSEARCHDIR", ""), ("WNHOME", "dict")):
        if os.environ.get(variable):
            yield Path(os.environ[variable]) / below
    yield Path("/usr/share/wordnet")
    for root in nltk_folders():
        yield from (root / "corpora" / "wordnet", root / "corpora" / "wordnet.zip")


def nltk_folders() -> list[Path]:
    try:
        from nltk.data import path
    except ImportError:
        path = os.environ.get("NLTK_DATA", "").split(os.pathsep)
    return [Path(folder) for folder in path if folder]


def find_dictionary(folders: Iterable[Path] | None = None) -> Dictionary:
    """The first WordNet in `folders` (default: `places`). Raises UserError saying how to install it."""
    for folder in places() if folders is None else folders:
        if folder.is_file() or (folder / "index.noun").is_file():
            return read_dictionary(folder)
    raise UserError(HELP)
