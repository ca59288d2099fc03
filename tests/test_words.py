"""The words of the glossary (CONTRIBUTING): names that were replaced do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("recsys", "features", "training", "serving", "protos", "benchmarks", "tests", "docs", "examples")
SUFFIXES = {".py", ".toml", ".md", ".j2", ".proto"}
# The changelog names what was renamed, the config has errors for old keys, and this file has the words.
EXEMPT = ("CHANGELOG.md", "recsys/config/renamed.py", "tests/test_words.py")
JOURNAL_AND_REDIS = re.compile(r"journal|serving/app\.py|recsys/config/serving\.py|features/store/redis")

WORDS = {
    r"Desk\b|Shelf\b|Crowd\b|\bheard_of\b|\bhurry\b|\bdoubt\w*": "name what it does",
    r"(?<!weakref\.)[Ff]inali[sz]e?": "refit",
    r"\b[Jj]udg(e|es|ed|ing)\b|judged": "evaluate, evaluated",
    r"[Ll]earnt": "TrainedModel, trained on; or: learned",
    r"training/learn\.py|training/nightly\.py|training/night\.py": "training/train.py, training/night/",
    r"\blate_(items?|heads?)\b|\bLateItems?\b|/late\.py": "fresh items",
    r"\bshard_logits\b|\bencode_shard\b|\bclass Shard\b": "period_logits, encode_rows, EncodedRows",
    r"told twice|hangs on no|meets its own errors|a purchase hangs|nobody has a past": "a plain sentence",
}
SEAL = r"\b[Ss]eal(s|ed|ing)?\b"
MEMBERS_KEY = r"^\s*members\s*=|\bmembers: int"


def _texts() -> dict[str, str]:
    paths = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in SUFFIXES]
    paths += [p for p in ROOT.iterdir() if p.suffix in SUFFIXES]
    texts = {str(p.relative_to(ROOT)): p.read_text() for p in paths if p.is_file()}
    texts["CONTRIBUTING.md"] = texts["CONTRIBUTING.md"].partition("## Words we do not use")[0]
    return {name: text for name, text in sorted(texts.items()) if name not in EXEMPT}


TEXTS = _texts()


def _lines_with(pattern: str, names: list[str]) -> list[str]:
    found = []
    for name in names:
        for number, line in enumerate(TEXTS[name].splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{name}:{number}: {line.strip()}")
    return found


@pytest.mark.parametrize(("pattern", "instead"), WORDS.items(), ids=WORDS.values())
def test_replaced_words_do_not_come_back(pattern, instead):
    found = _lines_with(pattern, [*TEXTS])
    assert not found, f"write {instead}:\n" + "\n".join(found)


def test_only_journal_files_and_buckets_of_redis_are_sealed():
    found = _lines_with(
        SEAL, [name for name in TEXTS if not JOURNAL_AND_REDIS.search(name) and name != "CONTRIBUTING.md"]
    )
    assert not found, "write: a bundle is written\n" + "\n".join(found)


def test_no_config_has_members():
    found = _lines_with(
        MEMBERS_KEY, [n for n in TEXTS if n.endswith(".toml") or n.startswith("recsys/config")]
    )
    assert not found, "write ensemble_size\n" + "\n".join(found)
