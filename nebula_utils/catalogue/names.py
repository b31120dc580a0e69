"""Spellings of catalogue numbers and names: one object, one key."""

import re
import unicodedata

MAX_NAME_LENGTH = 200  # characters; nothing in the sky has a longer name

_SHARPLESS_MAX = 313
_L, _B = r"0*(\d{1,3})", r"0*(\d{1,2})"  # galactic longitude and latitude

# Regular expressions over tidy text (lower case, single spaces), and how the
# canonical spelling is put together from the groups. First match wins.
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"(?:m|minkowski) ?([1-4]) ?- ?0*(\d{1,2})", "M {0}-{1}"),
    (r"m(?:essier)? ?0*(\d{1,3})", "M {0}"),
    (r"n(?:gc)? ?-?0*(\d{3,4}) ?-([1-4])", "NGC {0}-{1}"),
    (r"ngc[ -]?0*(\d{1,4}) ?([a-e]?)", "NGC {0}{1:upper}"),
    (r"n0*(\d{3,4})", "NGC {0}"),
    (r"ic[ -]?0*(\d{1,4}) ?([a-e]?)", "IC {0}{1:upper}"),
    (r"c(?:aldwell)? ?0*(\d{1,3})", "Caldwell {0}"),
    (r"b(?:arnard)?[ -]?(?:nebula )?0*(\d{1,3}) ?([a-e]?)", "B {0}{1}"),
    (r"s(?:h|harpless)?[ -]?2[ -]0*(\d{1,3}) ?([a-e]?)", "Sh2-{0}{1}"),
    (r"s(?:h|harpless)?[ -]?0*(\d{1,4})", "Sh2-{0}"),
    (r"(?:ldn|lynds(?: dark(?: nebula)?)?|l)[ -]?0*(\d{1,4}) ?([a-e]?)", "LDN {0}{1}"),
    (r"(?:lbn|lynds bright(?: nebula)?)[ -]?0*(\d{1,4})", "LBN {0}"),
    (r"(?:vdb|van den bergh)[- ]?ha(?:gen)? ?0*(\d{1,3})", "vdB-Ha {0}"),
    (r"vdbh ?0*(\d{1,3}) ?([a-e]?)", "vdBH {0}{1}"),
    (r"(?:vdb|van den bergh)[ -]?0*(\d{1,3})", "vdB {0}"),
    (r"rcw ?-?0*(\d{1,3}) ?([a-e]?)", "RCW {0}{1}"),
    (r"gum ?-?0*(\d{1,2}) ?([a-e]?)", "Gum {0}{1}"),
    (r"dwb ?-?0*(\d{1,3})", "DWB {0}"),
    (r"ced(?:erblad)? ?-?0*(\d{1,3}) ?([a-z]?)", "Ced {0}{1}"),
    (r"(?:cr|collinder) ?0*(\d{1,3})", "Cr {0}"),
    (r"(?:mel|melotte) ?0*(\d{1,3})", "Mel {0}"),
    (r"(?:tr|trumpler) ?0*(\d{1,2})", "Tr {0}"),
    (r"(?:pn )?a(?:bell)? ?66[ -]0*(\d{1,2})", "Abell {0}"),
    (r"(?:pn )?a(?:bell)?[ -]?0*(\d{1,2})", "Abell {0}"),
    (rf"(?:pn )?pk ?{_L} ?([+-]) ?{_B} ?[.#] ?0*(\d{{1,2}})", "PK {0}{1}{2}.{3}"),
    (rf"pn ?g? ?{_L}\.(\d) ?([+-]) ?{_B}\.(\d)", "PN G{0}.{1}{2}{3}.{4}"),
    (rf"(?:snr ?)?g? ?{_L}\.(\d+) ?([+-]) ?{_B}\.(\d+)", "SNR G{0}.{1}{2}{3}.{4}"),
    (r"cb ?0*(\d{1,3})", "CB {0}"),
    (r"sl ?0*(\d{1,2})", "SL {0}"),
    (r"cg ?0*(\d{1,2})", "CG {0}"),
    (r"(?:be|bernes) ?0*(\d{1,3})", "Be {0}"),
    (r"(?:hen?|henize) ?([123]) ?- ?0*(\d{1,4})", "Hen {0}-{1}"),
    (r"(?:hb|hubble) ?0*(\d{1,2})", "Hb {0}"),
    (r"(?:mz|menzel) ?0*(\d)", "Mz {0}"),
    (r"(?:k|kohoutek) ?([1-7]) ?- ?0*(\d{1,2})", "K {0}-{1}"),
    (r"(?:j|jonckheere|jonckere) ?900", "J 900"),
    (r"(?:simei[sz]|sim) ?0*(\d{1,3})", "Simeis {0}"),
    (r"(?:wr|wolf-rayet) ?0*(\d{1,3})([a-z]?)", "WR {0}{1}"),
    (r"(?:w|westerhout) ?([1-9]\d?)", "Westerhout {0}"),
    (r"(?:afgl|rafgl|crl) ?0*(\d{2,5})", "AFGL {0}"),
    (r"iras ?(\d{5}) ?([+-]) ?(\d{4})", "IRAS {0}{1}{2}"),
    (r"(?:hd|hde) ?0*(\d{3,6})", "HD {0}"),
)
_COMPILED = tuple((re.compile(pattern), form) for pattern, form in _PATTERNS)

# The last number of a catalogue, where people go beyond it.
_LAST = {
    "NGC": 7840,
    "IC": 5386,
    "M": 110,
    "Caldwell": 109,
    "LDN": 1802,
    "LBN": 1125,
    "Cr": 471,
    "Mel": 245,
}

# Words that alone name no one nebula: several have them, or a planet has.
SHARED_WORDS = set(
    "veil butterfly dolphin orion saturn dragon hourglass ghost jupiter mars neptune "
    "uranus".split()
)
_STARS = set(
    "sirius canopus arcturus vega capella rigel procyon betelgeuse achernar altair "
    "aldebaran antares spica pollux castor fomalhaut deneb regulus bellatrix alnitak "
    "alnilam mintaka saiph polaris mizar alcor algol mira albireo sadr".split()
)
# English names and what German and French ones leave without Nebel and nébuleuse.
_FOREIGN = """
crab: krebs, krabben, crabe
ring: ring, feuerrad, anneau, lanneau, lyre
dumbbell: hantel, haltere, lhaltere
orion nebula: orion, grosser orion, grosse orion, dorion, grande dorion
horsehead: pferdekopf, tete de cheval
north america: nordamerika, amerique du nord, lamerique du nord
lagoon: lagunen, lagune
trifid: trifid, trifide
eagle: adler, aigle, laigle
swan: schwanen, omega, cygne
rosette: rosetten, rosette
owl: eulen, hibou
eskimo: eskimo, lesquimau
pelican: pelikan, pelican
cocoon: kokon, cocon
bubble: blasen, bulle
cats eye: katzenaugen, oeil de chat, loeil de chat
heart: herz, coeur
soul: seelen, ame, lame
crescent: sichel, croissant
california: kalifornien, californie
tarantula: tarantel, tarentule
veil nebula: cirrus, schleier, dentelles, dentelles du cygne
butterfly nebula: schmetterlings, papillon
saturn nebula: saturn, saturne
helix: helix, helice, lhelice
jellyfish: quallen, meduse
witch head: hexenkopf, tete de sorciere
flame: flammen, flamme
cone: konus, cone
coalsack: kohlensack, sac a charbon
"""
_TRANSLATED = {
    form: english
    for english, _, forms in (line.partition(": ") for line in _FOREIGN.split("\n"))
    for form in forms.split(", ")
}
_KINDS = {  # of OpenNGC that are no nebulae
    "Star": "a star",
    "Double star": "a double star",
    "Association of stars": "a group of stars",
    "Open Cluster": "a star cluster",
    "Globular Cluster": "a globular star cluster",
    "Galaxy": "a galaxy",
    "Galaxy Pair": "a pair of galaxies",
    "Galaxy Triplet": "a group of galaxies",
    "Group of galaxies": "a group of galaxies",
}

# Left out of a common name before comparing: they don't tell objects apart.
_FILLERS = {"the", "nebula", "nebulae", "nebulosity"}
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")
_GREEK_NAMES = """alpha beta gamma delta epsilon zeta eta theta lambda omicron rho sigma
tau phi chi""".split()
_GREEK = dict(zip("αβγδεζηθλορστφχ", _GREEK_NAMES, strict=True))


def tidy(name: str) -> str:
    """Return what somebody typed in lower case, without accents or control characters.

    Dashes are ASCII, apostrophes gone, Greek letters spelt out, "_" and runs of blanks
    one space, none at the ends; what is over ``MAX_NAME_LENGTH`` is cut off.
    """
    text = unicodedata.normalize("NFKC", name[:MAX_NAME_LENGTH]).casefold()
    text = unicodedata.normalize("NFKD", text.translate(_DASHES))
    kept = (" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    text = "".join(_GREEK.get(c, c) for c in kept if not unicodedata.combining(c))
    text = re.sub(r"['`´‘’ʼ′]", "", text)
    text = re.sub(r"[\s_]+", " ", text).strip()
    return re.sub(r"(?<=\d) ?- (?=\d)", "-", text)  # Vy 1- 2, as Acker aligns them


def canonical(name: str) -> str | None:
    """Return the one spelling of a catalogue number, or None for other names.

    E.g. "Sh2-155" for "sh 2-155", "S155" and "Sharpless 155". That the number exists
    is not checked.
    """
    text = tidy(name)
    number = _number(text) or _number(text.removeprefix("pn "))
    return number or _number(_without_points(text))


def name_key(name: str) -> str:
    """Return the key under which a number or a common name is looked up.

    It is equal for spellings of one name: case, blanks, apostrophes, accents, leading
    zeros and the words "the" and "nebula" don't count. Signs between digits do, as in
    "IRAS 09371+1212". It is empty for no name at all.
    """
    number = canonical(name)
    if number is not None:
        return number.casefold()
    words = [w for w in re.split(r"[^\w+.-]+", tidy(name)) if w not in _FILLERS]
    text = " ".join(words)
    number = canonical(text)  # "the S155 nebula"
    if number is not None:
        return number.casefold()
    text = re.sub(r"(?<=\d)[ .-](?=\d)", "-", text)  # keep numbers apart
    return re.sub(r"(?<!\d)[^\w]+|[^\w]+(?!\d)|_", "", text)


def split_name(name: str) -> list[str]:
    """Return the names of one object that somebody wrote one after the other.

    E.g. of "M 1 (Crab Nebula)", "Veil: NGC 6992" or "B 33 Horsehead" both; of numbers
    run together ("M 42/43") the first.
    """
    text = re.sub(r"\b([a-z]+ ?)(\d+)(?: ?/ ?(?:\1)?\d+)+", r"\1\2", tidy(name))
    parts = re.split(
        r"[][(){}:;,=|]+|/(?=[a-z])|\s[-/&+]+\s|\b(?:aka|alias|and)\b", text
    )
    return [piece for part in parts for piece in _split_words(part.strip(" .!?-"))]


def translate(name: str) -> str | None:
    """Return the English name for a German or French one, or None."""
    text = tidy(name)
    text = re.sub(r"^(?:der|die|la|le) ", "", text.replace("œ", "oe"))
    text = re.sub(r"-?nebel$", "", text)
    text = re.sub(r"^(?:grande )?nebuleuse (?:(?:de la|des|du|de|d) )?", "", text)
    return _TRANSLATED.get(text.strip().replace("-", " "))


def explain(name: str) -> str:
    """Return why no nebula bears a name, if OpenNGC or the catalogues tell, or ""."""
    for part in split_name(name[:MAX_NAME_LENGTH]):
        number = canonical(part) or ""
        catalogue, _, digits = number.partition(" ")
        last = _LAST.get(catalogue)
        if last and digits.isdigit() and not 0 < int(digits) <= last:
            return f"there is no {number}, the last one is {catalogue} {last}"
        if catalogue == "LBN":  # see data/README.md
            return "it is in Lynds' list only, which doesn't tell the type of a nebula"
        kind = "a star" if part in _STARS else _KINDS.get(_read_openngc(part, number))
        if kind:
            return f"it is {kind}, not a nebula"
    return ""


def _read_openngc(name: str, number: str) -> str:
    import sqlite3
    from contextlib import closing

    from pyongc import ongc

    if number.startswith(("NGC ", "IC ", "M ", "Mel ", "Caldwell ")):
        try:
            return str(ongc.Dso(number.replace("aldwell", "")).type)
        except (ongc.ObjectNotFound, ongc.UnknownIdentifier):
            return ""
    query = (
        "SELECT typedesc FROM objects JOIN objTypes USING (type) "
        "WHERE instr(lower(',' || commonnames || ','), ?)"
    )
    with closing(sqlite3.connect(f"file:{ongc.DBPATH}?mode=ro", uri=True)) as data:
        row = data.execute(query, (f",{name.removeprefix('the ')},",)).fetchone()
    return str(row[0]) if row else ""


def _split_words(text: str) -> list[str]:
    run = re.fullmatch(r"(.*?\d)(?: ?[&+-] ?\d+)+", text)
    if canonical(text) is None and run and canonical(run.group(1)):
        return [run.group(1)]
    words = text.split()
    for end in range(len(words), 0, -1):
        first, last = " ".join(words[:end]), " ".join(words[-end:])
        if canonical(first) and (end == len(words) or re.search(r"\d$", first)):
            return [first, *_split_words(" ".join(words[end:]))]
        if end < len(words) and canonical(last):
            return [last, " ".join(words[:-end])]
    return [text] if text else []


def _without_points(text: str) -> str:
    text = text.strip(" .,;:!?")
    dotted = re.match(r"(?:[a-z]\. ?){2,}", text)  # I.C. 5070
    if dotted:
        head = dotted.group()
        text = re.sub(r"\W", "", head) + " " + text[len(head) :]
    text = re.sub(r"^([a-z ]+)[.,:] ?(?=\d)", r"\1 ", text)  # NGC.7000
    text = re.sub(r"^([a-z ]*[a-z])[ ,]*(?:#|\bno\.?|\bnr\.?) ?(?=\d)", r"\1 ", text)
    return re.sub(r"^([a-z]{3,}|m|ic|cr)-(?=\d)", r"\1 ", text).strip()


def _number(text: str) -> str | None:
    if not re.search(r"\d", text) or text in ("sh2", "sh 2", "sh-2"):
        return None
    for pattern, form in _COMPILED:
        match = pattern.fullmatch(text)
        if match:
            return _spell(form, match.groups())
    return None


def _spell(form: str, groups: tuple[str, ...]) -> str | None:
    if ":upper" in form:
        form, groups = form.replace(":upper", ""), (*groups[:-1], groups[-1].upper())
    if form == "Sh2-{0}" and int(groups[0]) > _SHARPLESS_MAX:
        # "sh2155" is Sh2-155 without its dash
        if not groups[0].startswith("2") or int(groups[0][1:]) > _SHARPLESS_MAX:
            return None
        groups = (str(int(groups[0][1:])),)
    return form.format(*groups)
