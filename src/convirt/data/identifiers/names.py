"""Patterns of personal names in reports: after a title, before a degree, after words such as `signed by`.

Without such a cue a name cannot be told from an eponym (Kerley, Hampton, Swan-Ganz), so none is looked for.
"""

import re

from convirt.data.identifiers.rules import Rule

# Capitalised words that follow a cue or a name without being one.
_NO_NAMES = (
    "drs?|dra|dres|mrs?|ms|prof|professor|srta?|sra|don|doña|doctora?|miss|mister|nurse|"
    "a|an|and|any|approximately|are|as|at|be|but|by|did|does|else|for|from|had|has|have|he|her|his|in|is|it|its|mr|no|none|"
    "not|of|on|or|our|per|pm|am|she|since|so|team|that|the|their|then|there|these|they|this|to|today|un|una|unknown|via|was|"
    "we|were|when|who|will|with|yes|you|your|con|de|del|el|en|la|las|los|para|por|que|se|sin|su|tras|y|"
    "acknowledged|advised|aware|called|confirmed|contacted|discussed|informed|notified|paged|present|read|received|"
    "recommended|recommends|relayed|reports|requested|reviewed|signed|spoke|states|verbalized|verified|"
    "acute|abdomen|abdominal|abnormal|addendum|admission|adult|age|anesthesia|angiography|ankle|attending|bone|brain|breast|"
    "cardiac|cardiology|cardiothoracic|care|chest|chief|child|clinic|clinical|clinician|colou?r|comparison|comparisons|"
    "conclusion|consult|consultant|contrast|correlation|ct|date|department|dept|diagnosis|division|doppler|ed|elective|"
    "emergency|er|exam|examination|female|fellow|findings?|floor|follow|frontal|gastroenterology|general|gender|group|"
    "head|healthcare|heart|history|hospital|hospitalist|icu|imaging|impression|inc|indication|information|inpatient|"
    "intensive|internal|interventional|lab|laboratory|lateral|left|lungs?|male|medical|medicine|mri|ms|name|neck|"
    "neurology|neurosurgery|normal|note|nursing|obstetrics|oncology|or|ordering|orthopa?edics?|outpatient|patient|"
    "paediatrics?|pediatrics?|pelvis|personnel|phone|physician|picc|portable|post|primary|procedure|provider|pulmonary|"
    "radiologist|radiologists|radiology|reason|recommendations?|referring|report|resident|right|room|sagittal|service|"
    "services|sex|shoulder|signature|society|specialist|spine|staff|status|stroke|study|supervising|surgery|surgical|"
    "technique|technologist|telephone|time|trauma|ultrasound|unit|university|urology|vascular|view|views|ward|wet|"
    "hallazgos|impresi[oó]n|conclusi[oó]n|historia|informe|juicio|paciente|radiolog[ií]a|servicio|t[eé]cnica|urgencias|"
    "electronically|digitally|dictated|transcribed|typed|authenticated|attested|finalized|interpreted|reported|approved|"
    "performed|prepared|firmado|informado|dictado|electr[oó]nicamente|"
    "american|british|european|fleischner|gram|polymerase|real|section"
)
# Latin letters with their accents; beyond Latin-1, capitals and small letters take turns and stand in both classes.
_UPPER, _LOWER = "A-ZÀ-ÖØ-ÞĀ-ž", "a-zß-öø-ÿĀ-ž"
_NOT = rf"(?!(?i:{_NO_NAMES})\b(?!['’-]\w\w))(?!X{{2,}}\b)(?!\w+[ \t]*:)"
# No name has more parts or letters; without a limit, time would grow with the square of such a text.
_MIXED = rf"{_NOT}(?:[{_UPPER}][{_LOWER}]*['’]?)?[{_UPPER}][{_LOWER}]+(?:[-'’][{_UPPER}][{_LOWER}]+){{0,6}}(?![\w])"
_CAPITALS = rf"{_NOT}[{_UPPER}](?:['’]?[{_UPPER}]){{1,60}}(?:-[{_UPPER}]+){{0,6}}(?![\w])"
_WORD = rf"(?:{_MIXED}|{_CAPITALS})"
_INITIAL = rf"(?:[{_UPPER}]\.|[{_UPPER}](?=[ \t]+[{_UPPER}][{_LOWER}'’{_UPPER}]))"
_PARTICLE = (
    r"(?:(?:[Dd]el?|[Ll]a|[Ll]as|[Ll]os|[Dd]a|do|dos|[Dd]i|[Dd]u|[Ll]e|[Vv]an|[Vv]on|[Dd]er|den|ter|bin|ibn|al|y|e|"
    r"DEL?|LA|LOS|VAN|VON)[ \t]+){0,3}"
)
_GAP = r"(?:[ \t]+|[ \t]*\n[ \t]*)"
_GIVEN = rf"(?:{_INITIAL}[ \t]*){{0,3}}"
_SMALL = rf"(?!(?i:{_NO_NAMES})\b)(?!x{{2,}}\b)[{_LOWER}][{_LOWER}'’-]+[{_LOWER}]"
_TAIL = r"(?:,?[ \t]+(?:Jr|Sr|III|II|IV)\b\.?)?"


def _name(word: str, fewest: int, most: int) -> str:
    """A name of `fewest` to `most` words, initials and particles beside them."""
    more = rf"{_GAP}{_PARTICLE}(?:{_INITIAL}[ \t]*){{0,2}}{word}"
    return rf"{_GIVEN}{_PARTICLE}{word}(?:{more}){{{fewest - 1},{most - 1}}}{_TAIL}"


_ANY = _name(_WORD, 1, 4)
_FULL = rf"(?:{_name(_MIXED, 2, 4)}|{_INITIAL}[ \t]*{_GIVEN}{_MIXED})"
# `SMITH, JOHN A`: only after a cue, where nothing else is to be expected.
_LISTED = rf"{_ANY}(?:,[ \t]*{_name(_WORD, 1, 3)}(?:[ \t]+[{_UPPER}]\b\.?)?)?"
_SMALL_TITLE = (
    r"(?:(?:Drs?|Dres|Dra|Mrs|Mr|Ms|Prof|Srta|Sra|Sr|Dña)\b\.?|"
    r"(?:Doctor|Doctora|Professor|Profesora?|Miss|Mister|Nurse|Don|Doña|Señora?|Sister|Brother|Father|"
    r"Technologist|Radiographer|Sonographer|Physician|Therapist|Resident|Fellow|Intern))"
)
_LARGE_TITLE = r"(?:(?:DRS?|DRA|MRS|MR|MS|PROF|SRA?)\.|DOCTOR|NURSE)"
_TITLE = rf"(?:{_SMALL_TITLE}|{_LARGE_TITLE})"
# `Drs. Hale and Moore`
_COUPLE = rf"(?:(?:,|[ \t]+(?:and|&|y))[ \t]+{_MIXED}(?=[ \t.,;)]))?"
# Studies of the modality MR, written like a title.
_NO_TITLED = (
    r"(?!(?i:angiogra|spectro|enterogra|arthrogra|cholangio|lumbar|cervical|thoracic|knee|wrist|hip|elbow|prostate|"
    r"liver|pelvic))"
)
_SIGNED = (
    r"(?:(?:electronically|digitally)[ \t]+)?(?:e-?)?(?:signed|dictated|transcribed|typed|authenticated|attested|"
    r"finalized|interpreted|reported|reviewed|approved|verified|performed|prepared|supervised|read|ordered|requested|edited|"
    r"completed|entered|authored|cosigned|co-signed)(?:[ \t]+(?:and|&)[ \t]+\w+)?[ \t]+(?:electronically[ \t]+)?by|"
    r"(?:firmado|informado|dictado|revisado|validado|realizado|solicitado|transcrito|supervisado)"
    r"(?:[ \t]+electr[oó]nicamente)?[ \t]+por|fdo\.?|"
    r"(?:name[ \t]+of[ \t]+)?(?:patient|pt)(?:'s)?[ \t]+name|patient[ \t]+is[ \t]+named|"
    r"nombre(?:[ \t]+y[ \t]+apellidos)?(?:[ \t]+del?[ \t]+paciente)?|apellidos(?:[ \t]+y[ \t]+nombre)?"
)
_LABELS = (
    r"(?:(?:attending|interpreting|dictating|referring|ordering|requesting|primary|consulting|"
    r"staff|reading|emergency)[ \t]+)?"
    r"(?:physician|provider|radiologist|surgeon|doctor|clinician)|"
    r"patient|pt|(?<!\w[ \t])name|paciente|cc|radiologist|technologist|tech|sonographer|resident|fellow|attending|"
    r"physician|surgeon|doctor|provider|author|transcriptionist|dictating|nurse|rad[ií][oó]logo|"
    r"m[eé]dico(?:[ \t]+(?:responsable|remitente|informante|peticionario))?|t[eé]cnico|facultativo|firma|"
    r"signed|dictated|signature|operator|consultant|clinician|assistant|mother|father|spouse|guardian|"
    r"(?:next[ \t]+of[ \t]+kin)|contact"
)
_TOLD = (
    r"discussed[ \t]+(?:in[ \t]+person[ \t]+|by[ \t]+(?:tele)?phone[ \t]+)?with|communicated[ \t]+(?:to|with)|"
    r"(?:relayed|conveyed|telephoned|phoned|reported|called|faxed|sent|given|made|paged|addressed)[ \t]+to|"
    r"notified|informed|paged|contacted|spoke[ \t]+(?:to|with)|conversation[ \t]+with|"
    r"acknowledged[ \t]+by|received[ \t]+by|comentado[ \t]+con|comunicado[ \t]+a|avisad[oa][ \t]+a|"
    r"(?:se[ \t]+)?(?:informa|avisa|comenta|comunica)(?:[ \t]+(?:a|con))"
)
_DEGREE = (
    r"(?:M\.?D\b\.?|Ph\.?D\b\.?|D\.O\.|R\.?N\b\.?|PA-C\b|CRNA\b|FRCR\b|FACR\b|MBBS\b|MBChB\b|DPM\b|DDS\b|RDMS\b|RT\([A-Z]+\)|"
    r"N\.P\.)|,[ \t]*(?:DO|NP|PA|RT|APRN|LPN|MSN|CNM|DNP|ARNP)\b"
)


# A full name after these is a person's; a single capitalised word need not be.
_BESIDE = (
    r"(?:read|seen|reviewed|evaluated|examined|rounded|spoken|confirmed|corroborated)[ \t]+with|per|by|attn:?|nurse,|"
    r"(?:for[ \t]+)?referring|"
    r"(?:daughter|son|wife|husband|mother|father|brother|sister|spouse|partner|cousin|aunt|uncle|niece|nephew|parent|"
    r"guardian|caregiver|hija|hijo|esposa|esposo|marido|madre|padre|hermana|hermano),?"
)


def _rule(pattern: str, needs: str, cue: str | None = None) -> Rule:
    needed = tuple(needs.split("|"))
    return Rule(kind="NAME", pattern=re.compile(pattern), needs=needed, cue=re.compile(cue) if cue else None)


_TITLES_NEED = (
    "dr|mr|ms|miss|mister|prof|sr|dñ|doct|nurse|don|doñ|señ|brother|father|sister|techn|graph|phys|thera|resid|fellow|"
    "intern"
)
_DEGREES_NEED = "m.d|md|phd|ph.d|d.o|do|rn|r.n|pa|na|frcr|facr|mb|dpm|dds|rdms|rt|n.p|np|lpn|msn|cnm"
_SIGNED_NEED = "by|por|fdo|nam|nombre|apellido"
_LABELS_NEED = ":"
_TOLD_NEED = "with|to|notif|informed|paged|contacted|by|con|avis|comunic|patient|paciente|named|por el|inform"
NAMES = (
    # In capitals `MR.` may be the modality, so what follows must be in capitals too.
    _rule(rf"(?<![\w.]){_SMALL_TITLE}{_GAP}(?P<id>{_ANY}{_COUPLE})", _TITLES_NEED),
    _rule(rf"(?<![\w.]){_LARGE_TITLE}{_GAP}{_NO_TITLED}(?P<id>{_name(_CAPITALS, 1, 4)})", _TITLES_NEED),
    _rule(rf"(?<![\w.'’-])(?P<id>{_ANY}),?[ \t]+(?:{_DEGREE})", _DEGREES_NEED, _DEGREE.lower()),
    _rule(
        rf"(?<![\w.'’-])(?P<id>{_WORD},[ \t]*{_name(_WORD, 1, 2)}(?:[ \t]+[{_UPPER}]\b\.?)?),[ \t]+(?:{_DEGREE})",
        _DEGREES_NEED,
        _DEGREE.lower(),
    ),
    _rule(rf"\b(?i:{_SIGNED})[ \t:]*(?:\n[ \t]*)?(?:{_TITLE}{_GAP})?(?P<id>{_LISTED})", _SIGNED_NEED, _SIGNED),
    _rule(
        rf"(?<!\w)(?i:{_LABELS})[ \t]*:[ \t]*(?:{_TITLE}{_GAP})?(?P<id>{_LISTED})",
        _LABELS_NEED,
        rf"(?:{_LABELS})[ \t]*:",
    ),
    _rule(rf"\b(?i:{_TOLD})[ \t]+(?P<id>{_FULL})", _TOLD_NEED, _TOLD),
    _rule(
        rf"\b(?i:{_BESIDE})[ \t]+(?P<id>{_name(_MIXED, 2, 4)})",
        "with|per|by|attn|er|son|wif|hus|ous|aunt|uncle|ie|hij|ma",
        rf"\b(?:{_BESIDE})[ \t]",
    ),
    _rule(
        r"(?<!the )(?<!from )(?<!of )(?<!in )(?<!at )(?<![\w.'’-])"
        rf"(?P<id>{_name(_MIXED, 2, 4)})[ \t]+(?:presented|presents|returned|underwent)\b",
        "presented|presents|returned|underwent",
    ),
    _rule(
        rf"\b(?P<id>{_name(_WORD, 2, 4)}),?[ \t]+(?i:is|was|es)[ \t]+(?i:an?|una?)[ \t]+\d{{1,3}}[ \t-]?(?i:y|año)",
        "y|año",
        r"\b(?:is|was|es)[ \t]+(?:an?|una?)[ \t]+\d",
    ),
    _rule(
        rf"\b(?i:the[ \t]+patient,?|patient|paciente|named)[ \t]+(?P<id>{_name(_MIXED, 2, 4)})",
        "patient|paciente|named",
    ),
    _rule(rf"(?<![\w.])dr\.?[ \t]+(?P<id>{_SMALL}(?:[ \t]+{_SMALL})?)", "dr"),
)
