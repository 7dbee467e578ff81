"""The patterns behind `identifiers.finding`: what a name, a date, a number of a record look like in a report.

Each rule is a kind, a pattern whose group `id` is what identifies, and, where a pattern alone is not enough, a check.
Cues match in any case; names must be written with capitals, since nothing else tells them from words.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One way in which an identifier is written."""

    kind: str
    pattern: re.Pattern[str]
    """Its group `id` is what identifies."""
    accept: Callable[[re.Match[str]], bool] | None = None
    """Refuses what only looks like it."""
    needs: tuple[str, ...] = tuple("0123456789")
    """Lower-case pieces, one of which stands in every text that the pattern fits: looking for them is far quicker."""
    cue: re.Pattern[str] | None = None
    """What the lower-case text must have as well, where the pattern begins with what is everywhere."""


def _rule(
    kind: str, pattern: str, accept: Callable[[re.Match[str]], bool] | None = None, needs: str | None = None
) -> Rule:
    if needs is None:
        return Rule(kind=kind, pattern=re.compile(pattern), accept=accept)
    return Rule(kind=kind, pattern=re.compile(pattern), accept=accept, needs=tuple(needs.split("|")))


# --- dates and times -------------------------------------------------------------------------------------------------

_SURE_MONTHS = (
    "January|February|April|June|July|August|September|October|November|December|"
    "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|setiembre|octubre|noviembre|diciembre"
)
# Words of their own, or too short to stand without a capital: `may represent`, `mar`, `dec`.
_CAPITAL_MONTHS = (
    "March|May|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec|Ene|Abr|Ago|Dic|"
    "MARCH|MAY|JAN|FEB|MAR|APR|JUN|JUL|AUG|SEPT|SEP|OCT|NOV|DEC|ENE|ABR|AGO|DIC"
)
_MONTH = rf"(?:(?i:{_SURE_MONTHS})|{_CAPITAL_MONTHS})"
_ANY_MONTH = rf"(?i:{_SURE_MONTHS}|{_CAPITAL_MONTHS})"
_YEAR = r"(?:19|20)\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_UNIT = r"(?!\s*(?:mm|cm|ml|mg|cc|kg|%|x\b|×))"


def _is_date(match: re.Match[str]) -> bool:
    """Whether two of the three numbers can be a day and a month, in either order."""
    first, second = int(match["a"]), int(match["b"])
    return 1 <= min(first, second) <= 12 and 1 <= max(first, second) <= 31


DATES = (
    _rule("DATE", rf"\b(?P<id>{_MONTH}\.?\s+{_DAY}(?:st|nd|rd|th)?(?:,?\s+(?:{_YEAR}|'\d\d))?)(?![\d.:/])\b{_UNIT}"),
    _rule(
        "DATE",
        rf"(?<![\w./-])(?P<id>{_DAY}(?:st|nd|rd|th|[ºª°])?(?:\s+(?:of|de)\s+|\s+|-){_MONTH}\b\.?"
        rf"(?:(?:,|\s+de|\s+del|-)?\s*(?:{_YEAR}|'?\d\d(?!\d)))?)",
    ),
    _rule("DATE", rf"(?<![\w./-])(?P<id>{_DAY}[ -]{_ANY_MONTH}\.?[ ,-]+{_YEAR})\b"),
    _rule("DATE", rf"\b(?P<id>{_ANY_MONTH}\.?,?\s+(?:(?:of|de|del)\s+)?(?:{_DAY},?\s+)?{_YEAR})\b"),
    _rule(
        "DATE",
        r"\b(?i:in|on|since|until|till|during|last|this|from|early|late|mid|en|desde|hasta|pasado)[\s-]+"
        rf"(?P<id>(?i:{_SURE_MONTHS})|March|May|MARCH|Sept?\b\.?|Oct\b\.?|Nov\b\.?|Jan\b\.?|Feb\b\.?|Aug\b\.?)(?!\w)",
        needs="jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|enero|abril|agosto|setiembre|dic",
    ),
    _rule("DATE", rf"(?<![\d./-])(?P<id>{_YEAR}(?P<s>[-/.])(?P<a>\d\d?)(?P=s)(?P<b>\d\d?))(?![\d/-])", _is_date),
    _rule("DATE", rf"(?<![\w./-])(?P<id>(?P<a>\d\d?)(?P<s>[-/.])(?P<b>\d\d?)(?P=s){_YEAR})(?![\d/-])", _is_date),
    _rule("DATE", r"(?<![\w./-])(?P<id>(?P<a>\d\d?)/(?P<b>\d\d?)/\d\d)(?![\w/-]|\.\d)", _is_date),
    _rule("DATE", rf"(?<![\w./-])(?P<id>(?P<a>\d\d)(?P<s>[-.])(?P<b>\d\d)(?P=s)\d\d)(?![\w/-]|\.\d){_UNIT}", _is_date),
    _rule("DATE", rf"(?<![\w./-])(?P<id>(?:0?[1-9]|1[0-2])/{_YEAR})(?![\w/-])"),
    _rule("DATE", rf"(?<![\w./-])(?P<id>{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))(?![\w/.-]*\d)"),
    _rule(
        "DATE",
        r"\b(?i:on|dated|since|el|d[ií]a|comparison:?|compared\s+(?:to|with))\s+(?P<id>(?P<a>\d\d?)/(?P<b>\d\d?))"
        r"(?![\d/.-])(?!\s*(?i:views?|images?|slices?|leads|films?|occasions|of\b|series|levels?|mrc|power|strength|cm|mm"
        r"|vertebra|extremit|days|blood|cultures|sets|de\b|third|motor|pain|cases|patients|tests))",
        _is_date,
    ),
)

# `mass at 12:00`: clocks also tell places in a breast or an eye, at full and half hours.
_CLOCK = r"(?!\s*,?\s*(?:o'?clock|position|axis|radi|\d+(?:\.\d+)?\s*(?:cm|mm)|dilution|titer|ratio))"


def _is_time(match: re.Match[str]) -> bool:
    """Whether it is not a direction on the face of a clock."""
    around = match.string[max(0, match.start() - 80) : match.end() + 80]
    return not re.fullmatch(r"(?:0?[1-9]|1[0-2]):[03]0", match["id"]) or not re.search(
        r"(?i)breast|nipple|mama", around
    )


TIMES = (
    _rule(
        "TIME",
        r"(?<![\d:.])(?<!\bimage )(?<!\bseries )(?<!\bratio )(?<!\btiter )"
        rf"(?P<id>(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?:\s*(?i:[ap]\.?\s?m\b\.?|hours\b|hrs?\b|horas\b|h\b|[ECMP][SD]T\b))?)(?![\d:]){_CLOCK}",
        _is_time,
    ),
    _rule("TIME", r"(?<![\d:.])(?P<id>(?:0?[1-9]|1[0-2])(?:[.:]?[0-5]\d)?\s*(?i:[ap]\.m\.|[ap]m\b))"),
    _rule("TIME", r"(?<![\d:.])(?P<id>(?:[01]\d|2[0-3])[0-5]\d\s*(?i:hours|hrs|h)\b)"),
    _rule("TIME", r"(?<![\d:.])(?P<id>(?:[01]?\d|2[0-3])h[0-5]\d)\b"),
)

# --- numbers ---------------------------------------------------------------------------------------------------------


def _digits(text: str) -> list[int]:
    return [int(character) for character in text if character.isdigit()]


def _is_nhs(match: re.Match[str]) -> bool:
    digits = _digits(match["id"])
    check = 11 - sum(digit * weight for digit, weight in zip(digits[:9], range(10, 1, -1), strict=True)) % 11
    return digits[9] == check % 11


def _is_cpf(match: re.Match[str]) -> bool:
    digits = _digits(match["id"])
    for length in (9, 10):
        weighted = sum(d * w for d, w in zip(digits[:length], range(length + 1, 1, -1), strict=True))
        if digits[length] != weighted * 10 % 11 % 10:
            return False
    return True


def _is_dni(match: re.Match[str]) -> bool:
    """The letter of a Spanish DNI or NIE follows from its number."""
    number = re.sub(r"\D", "", match["id"].upper().translate(str.maketrans("XYZ", "012"))[:-1])
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == match["id"][-1].upper()


_NUMBER_SIGN = r"(?:\s*(?:#|no\b\.?|num(?:ber)?\b\.?|n[º°]\.?|id\b))"
_RECORD_CUES = (
    r"MRN|M\.R\.N\.|MR\s*#|FIN|CSN|NHC|N\.H\.C\.|CIPA?|NUHSA|NASS|NPI|DEA|DOB|UID|S/N|"
    rf"(?:med(?:ical)?\.?\s+rec(?:ord)?s?\.?|acc(?:ession)?\.?|account|acct\.?|hospital|unit|chart|record){_NUMBER_SIGN}?|"
    r"(?:patient|pt\.?|case|encounter|visit|order|exam|study|report|specimen|serial|device|license|policy|member|"
    rf"insurance|requisition|request|episode|admission|file|paciente|estudio|informe|episodio){_NUMBER_SIGN}|"
    r"(?:n[º°o]\.?|n[uú]m(?:ero)?\.?)\s*(?:de\s+)?(?:historia(?:\s+cl[ií]nica)?|acceso|paciente|episodio|estudio|informe|"
    r"petici[oó]n|afiliaci[oó]n|registro)|historia(?:\s+cl[ií]nica)?(?:\s*(?:n[º°o]\.?|n[uú]m\.?))?"
)


def _is_no_reference(match: re.Match[str]) -> bool:
    """Whether a long number is not that of an article or a trial."""
    before = match.string[max(0, match.start() - 12) : match.end()]
    return not re.search(r"(?i)(?:PMID|PMCID|PMC|NCT|doi|ISBN|ISSN)[\s:#]*\d+$", before)


NUMBERS = (
    _rule("EMAIL", r"(?P<id>\b[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+\b)", needs="@"),
    _rule("URL", r"(?P<id>\b(?:https?://|ftp://|www\.)[^\s<>\"')\]]*[^\s<>\"')\].,;:])", needs="://|www."),
    _rule("NATIONAL_ID", r"(?<![\w-])(?P<id>(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4})(?![\w-])"),
    _rule("NATIONAL_ID", r"(?<![\w.-])(?P<id>(?:\d{8}|\d\d\.\d{3}\.\d{3}|[XYZ]-?\d{7})[- ]?[A-HJ-NP-TV-Z])\b", _is_dni),
    _rule("NATIONAL_ID", r"(?<![\w-])(?P<id>\d{3}\s\d{3}\s\d{4})(?![\w-])", _is_nhs),
    _rule("NATIONAL_ID", r"(?<![\w.-])(?P<id>\d{3}\.\d{3}\.\d{3}-\d\d)(?![\w-])", _is_cpf),
    _rule("NATIONAL_ID", r"\b(?P<id>[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z])\b"),
    _rule("NATIONAL_ID", r"\b(?i:SSN|social\s+security(?:\s+number)?)[\s:#]{1,3}(?P<id>\d{3}[- ]?\d\d[- ]?\d{4})\b"),
    _rule(
        "PHONE",
        r"(?<![\w.+-])(?P<id>(?:\+?1[ .-]?)?(?:\(\d{3}\)\s?|\d{3}[.-]|\d{3}\s)\d{3}[ .-]\d{4}"
        r"(?:\s*(?i:x|ext\.?|extension)\s*\d{1,6})?)(?![\w-]|\.\d)",
    ),
    _rule("PHONE", r"(?<![\w.+-])(?P<id>0\d{2,4}[ -]\d{3,4}[ -]\d{3,4})(?![\w-]|[.,]\d)"),
    _rule("PHONE", r"(?<![\w.+-])(?P<id>(?:\+|00)\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,11})(?![\w-])"),
    _rule(
        "PHONE", r"(?<![\w.+-])(?P<id>[6-9]\d\d(?P<s>[ .-])\d{3}(?P=s)\d{3}|[6-9]\d\d \d\d \d\d \d\d)(?![\w-]|[.,]\d)"
    ),
    _rule(
        "PHONE",
        r"\b(?i:phone|telephone|tel|tel[eé]fono|tfno|tlf|m[oó]vil|pager|beeper|fax|cell|mobile|ext|extension|extensi[oó]n|"
        r"busca|call|paged?|dial|ring|contact)\b\.?(?i:\s*(?:number|no\.?|#|n[º°]|at))?[\s:#.]{0,3}"
        r"(?P<id>\(?\+?\d[\d ().-]{1,16}\d)(?!\w|[/:]\d)(?!\s*(?:mm|cm|mg|%))",
        lambda match: len(_digits(match["id"])) >= 4 and not re.fullmatch(r"[\d]+\.\d{1,3}", match["id"]),
    ),
    _rule(
        "RECORD",
        rf"(?i:(?<![\w-])(?:{_RECORD_CUES}))(?:\s+(?i:is|was|es))?[\s:#.=-]{{0,4}}"
        r"(?P<id>(?=[\w/-]*\d[\w/-]*\d[\w/-]*\d)[A-Za-z]{0,5}[-/]?\d[\w/-]*\w)(?![./]\d)",
        lambda match: len(_digits(match["id"])) >= 4,
    ),
    _rule(
        "RECORD",
        r"(?<![\w.,/-])(?P<id>[A-Z]{0,4}-?\d{7,})(?!\w|[.,]\d)(?!\s*(?:/|cells|copies|platelets|CFU|IU|U/|units))",
        _is_no_reference,
    ),
    _rule("RECORD", r"(?<![\w-])(?P<id>[A-Z]{1,3}\d{2}-\d{3,7})(?![\w-])"),
    _rule("RECORD", r"(?<![\w.])(?P<id>[0-2](?:\.\d++){5,}+)(?!\w|\.\w)"),
    _rule("RECORD", r"\b(?P<id>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\b"),
    _rule(
        "AGE",
        r"(?<![\w.,/-])(?P<id>(?:9\d|1[01]\d)(?:[\s-]*(?i:years?|yrs?|y)[\s-]*(?i:old|of\s+age|/?o)\b\.?|\s*(?i:yo\b|y\.o\.)|"
        r"[\s-]+(?i:yrs?\b\.?)(?!\s+ago)|\s+años\b))",
    ),
    _rule(
        "AGE",
        r"\b(?i:aged?|age:|edad:?|edad\s+de)\s*(?P<id>(?:9\d|1[01]\d))\b(?!\s*(?:%|days|d[ií]as|months|meses|weeks))",
    ),
    _rule("AGE", r"(?<![\w.,/-])(?P<id>(?:9\d|1[01]\d)\s?[MF])\b(?=\s*(?:with|w/|s/p|,|\.|presents|who))"),
)

# --- places ----------------------------------------------------------------------------------------------------------

_STATES = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]"
)
_SPANISH_CITIES = (
    "Madrid|Barcelona|Valencia|Sevilla|Zaragoza|Málaga|Murcia|Palma|Bilbao|Alicante|Córdoba|Valladolid|Vigo|Gijón|Granada|"
    "A Coruña|Vitoria|Oviedo|Pamplona|Almería|San Sebastián|Santander|Burgos|Albacete|Castellón|Logroño|Badajoz|"
    "Salamanca|Huelva|Lleida|Tarragona|León|Cádiz|Jaén|Ourense|Girona|Lugo|Cáceres|Toledo|Pontevedra|Palencia|"
    "Ciudad Real|Zamora|Ávila|Cuenca|Huesca|Segovia|Soria|Teruel|Guadalajara|Ceuta|Melilla|Las Palmas|Santa Cruz"
)
_SUFFIX = (
    r"(?:Street|St\.?|Avenue|Ave\.?|Road|Rd\.?|Boulevard|Blvd\.?|Lane|Ln\.?|Drive|Court|Circle|Parkway|Pkwy\.?|Highway|"
    r"Hwy\.?|Terrace|Way|Place|Square|STREET|ST\.?|AVENUE|AVE\.?|ROAD|RD\.?|BOULEVARD|BLVD\.?|LANE|DRIVE)"
)
_PLACE_WORD = r"(?:(?:de|del|la|las|los)\s+)*[A-ZÀ-Þ][\w'’.-]*"
PLACES = (
    _rule(
        "ADDRESS",
        rf"(?<![\w.,/-])(?P<id>\d{{1,5}}[A-Z]?\s+(?:[NSEW]\.?\s+)?(?:(?:[A-Z][\w'’-]*|\d{{1,3}}(?:st|nd|rd|th))\s+){{1,3}}"
        rf"{_SUFFIX}(?:,?\s*(?:Apt|Apartment|Suite|Ste|Unit|#)\.?\s*\w+)?)(?!\w)",
    ),
    _rule(
        "ADDRESS",
        r"\b(?P<id>(?:(?i:calle|avenida|avda\.?|av\.|paseo|plaza|pza\.?|camino|ronda)|C/)\s*(?:(?:de|del)\s+)?"
        rf"{_PLACE_WORD}(?:\s+{_PLACE_WORD}){{0,4}},?\s*(?:n[º°o]?\.?\s*)?\d{{1,4}}(?:,?\s*\d{{1,2}}\s?[ºª°]\s?[A-Z]?\b)?)",
    ),
    _rule("ADDRESS", r"\b(?P<id>(?i:p\.?\s?o\.?\s+box)\s+\d+)\b"),
    _rule("ZIP", rf"[A-Z][\w'’.-]{{1,60}},?\s+(?P<id>(?:{_STATES})\.?\s+\d{{5}}(?:-\d{{4}})?)(?![\w-])"),
    _rule(
        "ZIP", r"\b(?i:zip(?:\s+code)?|postal\s+code|c[oó]digo\s+postal|c\.p\.|cp)[\s:]{0,3}(?P<id>\d{5}(?:-\d{4})?)\b"
    ),
    _rule("ZIP", rf"(?<![\w.,/-])(?P<id>(?:0[1-9]|[1-4]\d|5[0-2])\d{{3}})[,\s]+(?i:{_SPANISH_CITIES})\b"),
    _rule("ZIP", r"\b(?i:postcode|postal\s+code)[\s:]{0,3}(?P<id>[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2})\b"),
)
