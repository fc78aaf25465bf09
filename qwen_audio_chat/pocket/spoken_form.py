"""Written English as it is spoken: numbers, money, dates and abbreviations become words.

Sentences whose reading is uncertain (acronyms, symbols, other scripts) are rejected rather than guessed, because a
wrong transcript teaches the model to mishear.
"""

import re
import unicodedata

from num2words import num2words

_ABBREVIATIONS = {
    "Mr.": "Mister",
    "Mrs.": "Missus",
    "Messrs.": "Messieurs",
    "Dr.": "Doctor",
    "St.": "Saint",
    "Capt.": "Captain",
    "Col.": "Colonel",
    "Gen.": "General",
    "Lt.": "Lieutenant",
    "Prof.": "Professor",
    "Rev.": "Reverend",
    "Hon.": "Honorable",
    "Jr.": "Junior",
    "Sr.": "Senior",
    "Esq.": "Esquire",
    "vs.": "versus",
    "etc.": "et cetera",
    "&c.": "et cetera",
    "viz.": "namely",
    "e.g.": "for example",
    "i.e.": "that is",
    "No.": "Number",
}
_ABBREVIATION = re.compile("|".join(rf"(?<![\w.]){re.escape(key)}" for key in _ABBREVIATIONS))
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_CURRENCY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_ASCII = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "`": "'",
        "“": '"',
        "”": '"',
        "–": "-",
        "—": " - ",
        "…": ".",
        "æ": "ae",
        "œ": "oe",
        "\u00a0": " ",
    }
)


def _in_words(number: int, kind: str = "cardinal") -> str:
    return num2words(number, to=kind).replace(",", "").replace("-", " ")


def _year(number: int) -> str:
    """1805 → eighteen oh five, 1900 → nineteen hundred, 2007 → two thousand and seven."""
    century, rest = divmod(number, 100)
    if number % 1000 < 10:
        return _in_words(number)
    if rest == 0:
        return f"{_in_words(century)} hundred"
    return f"{_in_words(century)} {'oh ' if rest < 10 else ''}{_in_words(rest)}"


def _money(match: re.Match) -> str:
    unit, cent = _CURRENCY[match[1]]
    whole, scale = int(match[2].replace(",", "")), match[4]
    if scale:
        return f"{_in_words(whole)} {scale} {unit}s"
    text = f"{_in_words(whole)} {unit}{'' if whole == 1 else 's'}"
    if match[3] and int(match[3]):
        small = int(match[3])
        plural = {"penny": "pence"}.get(cent, f"{cent}s")
        text += f" and {_in_words(small)} {cent if small == 1 else plural}"
    return text


def _clock(match: re.Match) -> str:
    hour, minute = int(match[1]), int(match[2])
    tail = " ".join(match[3].upper().replace(".", "")) if match[3] else ""
    middle = (
        "o'clock"
        if minute == 0 and not tail
        else ""
        if minute == 0
        else f"oh {_in_words(minute)}"
        if minute < 10
        else _in_words(minute)
    )
    return " ".join(part for part in (_in_words(hour), middle, tail) if part)


def _decimal(match: re.Match) -> str:
    return f"{_in_words(int(match[1].replace(',', '')))} point {' '.join(_in_words(int(digit)) for digit in match[2])}"


def _integer(match: re.Match) -> str:
    digits = match[0].replace(",", "")
    number = int(digits)
    if len(digits) > 12 or (digits[0] == "0" and len(digits) > 1) or (len(digits) > 6 and "," not in match[0]):
        return " ".join(_in_words(int(digit)) for digit in digits)  # serial and telephone numbers
    if len(digits) == 4 and "," not in match[0] and 1100 <= number <= 2099:
        return _year(number)
    return _in_words(number)


def spoken_form(written: str) -> str:
    """Spell out numbers and abbreviations, keeping case and punctuation for a synthesizer's prosody."""
    text = unicodedata.normalize("NFC", written).translate(_ASCII)
    text = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    text = _ABBREVIATION.sub(lambda match: _ABBREVIATIONS[match[0]], text)
    text = re.sub(r"([$£€])(\d[\d,]*)(?:\.(\d\d))?(?: (hundred|thousand|million|billion))?\b", _money, text)
    text = re.sub(r"\b(\d{1,2}):([0-5]\d)(?: ?([ap]\.?m\.?)(?![a-z]))?", _clock, text, flags=re.IGNORECASE)
    text = re.sub(
        rf"\b({_MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)",
        lambda match: f"{match[1]} {_in_words(int(match[2]), 'ordinal')}",
        text,
    )
    text = re.sub(r"\b(\d{1,4})(?:st|nd|rd|th)\b", lambda match: _in_words(int(match[1]), "ordinal"), text)
    text = re.sub(r"\b(\d[\d,]*)\.(\d{1,4})\b", _decimal, text)
    text = re.sub(r"\d(?:[\d,]*\d)?", _integer, text)
    text = re.sub(r"(?<=\w)%", " percent", text)
    text = re.sub(r" & ", " and ", text)
    return re.sub(r"\s+", " ", text).strip()


def transcript(spoken: str) -> str | None:
    """The text of a manifest: lower case, no punctuation except apostrophes.

    Args:
        spoken: a sentence as `spoken_form` returns it.

    Returns:
        The transcript, or None where the reading is uncertain: acronyms, Roman numerals, initials, symbols or other
        scripts.
    """
    if re.search(r"[^A-Za-z'\s.,;:!?\"()\-]", spoken) or re.search(
        r"\b(?![AIO]\b)[A-Z]{2,}\b|[a-z][A-Z]|\b[B-HJ-Z]\.", spoken
    ):
        return None
    if re.search(r"\b[a-z]*[bcdfghjklmnpqrstvwxz]{6,}[a-z]*\b|(.)\1\1|\.[a-z]", spoken, re.IGNORECASE):
        return None
    text = re.sub(r"[^a-z']", " ", spoken.lower())
    text = re.sub(r"(?<![a-z])'+|'+(?![a-z])", " ", text)
    return " ".join(text.split()) or None


def plain_text(written: str) -> str:
    """Lower case, numbers in words, no punctuation except apostrophes; unlike `transcript`, of any sentence."""
    return " ".join(re.sub(r"[^a-z' ]", " ", spoken_form(written).lower()).replace(" '", " ").split())
