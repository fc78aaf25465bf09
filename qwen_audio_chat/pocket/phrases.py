"""Generated phrases for what is rare in prose: numbers, money, dates, times, names, spelling, questions, commands."""

import random
from collections.abc import Iterator

from num2words import num2words

_FIRST = (
    "James Mary John Patricia Robert Jennifer Michael Linda William Elizabeth David Barbara Richard Susan "
    "Joseph Jessica Thomas Sarah Charles Karen Daniel Nancy Matthew Lisa Anthony Margaret George Emily Henry "
    "Alice Arthur Florence Walter Edith Harold Rose Frederick Clara Ernest Ada Philip Helen Peter Ruth Simon "
    "Grace Martin Laura Oliver Sophia Edward Charlotte Samuel Hannah Benjamin Rachel Nathan Julia Oscar "
    "Victoria"
).split()
_LAST = (
    "Smith Johnson Brown Taylor Anderson Wilson Thompson Walker Wright Roberts Green Hall Wood Jackson Clarke "
    "Hughes Edwards Turner Hill Moore Cooper Ward Morris King Baker Harris Martin Lee Parker Bennett Young "
    "Carter Mitchell Shaw Bell Murphy Miller Cox Richards Marshall Stone Fletcher Dawson Holmes Barker Grant "
    "Webb Chapman Newton Whitfield Ashworth Holloway Sinclair Fairbanks"
).split()
_PLACE = (
    "London Paris Berlin Rome Madrid Vienna Boston Chicago Dublin Edinburgh Geneva Lisbon Athens Cairo Delhi "
    "Tokyo Sydney Toronto Montreal Denver Seattle Oxford Cambridge Bristol York Venice Florence Naples Moscow "
    "Warsaw Prague Budapest Oslo Stockholm Copenhagen Helsinki Amsterdam Brussels Jerusalem Bombay"
).split()
_MONTH = ("January February March April May June July August September October November December").split()
_DAY = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_THINGS = (
    "apples", "books", "candles", "chairs", "letters", "pounds of sugar", "bottles of wine", "horses", "sheep",
    "soldiers", "ships", "houses", "windows", "tickets", "pages", "minutes", "miles", "yards of cloth",
    "bags of flour", "barrels",
)  # fmt: skip
_QUESTIONS = (
    "Where is the nearest {p}?",
    "What time does the {p} open?",
    "How much does the {p} cost?",
    "Who built the {p} in {c}?",
    "Why did you leave the {p} so early?",
    "Have you ever seen the {p}?",
    "Could you show me the way to the {p}?",
    "When will {n} come back from the {p}?",
    "Is there a {p} near {c}?",
    "Did {n} really buy the {p}?",
    "Would you like to sit near the {p}?",
    "Which {p} belongs to {n}?",
    "Shall we meet in front of the {p}?",
)
_COMMANDS = (
    "Turn off the {p}.",
    "Please open the {p}.",
    "Call {n} on {d} morning.",
    "Remind me to visit {n} on {d}.",
    "Play some music in the {p}.",
    "Bring the {p} back to {n}.",
    "Do not touch the {p}.",
    "Send {n} a message about the {p}.",
    "Close the {p} before you go.",
    "Look behind the {p}.",
)
_NOUN = (
    "station hotel library museum garden kitchen window door bridge church market theatre harbour lighthouse "
    "bakery hospital school tower castle palace mill farm orchard cellar chimney staircase lamp radio "
    "carriage railway post office bank pharmacy restaurant river forest valley mountain island lake beach "
    "fountain statue"
).split()


def _number(rng: random.Random) -> str:
    top = rng.choice([20, 100, 1000, 10_000, 1_000_000])
    return f"{rng.randrange(1, top):,}"


def _spelled(word: str) -> str:
    return " ".join(word.upper())


def _phrase(rng: random.Random) -> str:
    first, last, place = rng.choice(_FIRST), rng.choice(_LAST), rng.choice(_PLACE)
    month, day, year = rng.choice(_MONTH), rng.randrange(1, 29), rng.randrange(1600, 2031)
    hour, minute = rng.randrange(1, 13), rng.randrange(60)
    kind = rng.randrange(14)
    if kind == 0:
        return f"{first} {last} was born in {place} on {month} {day}, {year}."
    if kind == 1:
        return f"There were {_number(rng)} {rng.choice(_THINGS)} in the {rng.choice(_NOUN)}."
    if kind == 2:
        return f"The train to {place} leaves at {hour}:{minute:02d}."
    if kind == 3:
        return f"It costs {rng.choice('$£€')}{rng.randrange(1, 300)}.{rng.randrange(100):02d} in {place}."
    if kind == 4:
        return f"My name is {first} {last}, spelled {_spelled(last)}."
    if kind == 5:
        return f"Please dial {' '.join(str(rng.randrange(10)) for _ in range(rng.choice([4, 7, 10])))}."
    if kind == 6:
        return f"On {rng.choice(_DAY)} {first} and {rng.choice(_FIRST)} went from {place} to {rng.choice(_PLACE)}."
    if kind == 7:
        return f"About {rng.randrange(1, 100)}% of the {rng.choice(_THINGS)} came from {place}."
    if kind == 8:
        return f"Chapter {rng.randrange(1, 60)}, page {rng.randrange(1, 700)}."
    if kind == 9:
        if 4 <= day <= 20:
            return f"{first} {last}, the {num2words(rng.randrange(1, 32), to='ordinal_num')} of {month}"
        return f"In {year} the {rng.choice(_NOUN)} in {place} was rebuilt."
    if kind == 10:
        return f"The answer is {rng.randrange(100)}.{rng.randrange(1, 1000)}, not {_number(rng)}."
    if kind in (11, 12):
        return rng.choice(_QUESTIONS).format(p=rng.choice(_NOUN), c=place, n=first)
    return rng.choice(_COMMANDS).format(p=rng.choice(_NOUN), n=first, d=rng.choice(_DAY))


def phrases(count: int, rng: random.Random) -> Iterator[str]:
    """Generate `count` phrases with the given random generator; some may repeat."""
    for _ in range(count):
        yield _phrase(rng)
