"""Words that trade places in a caption when its image is mirrored, by language.

The first pair of a word decides what replaces it, so where a language has more forms for one side
than for the other, later pairs only lead back. Longer phrases take precedence over the words in
them, and a phrase that is paired with itself protects its words. Words that another language uses
for something else, such as Spanish `der.`, are left out.
"""

from typing import Literal, get_args

Language = Literal["english", "german", "french", "spanish", "italian", "portuguese"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

Pair = tuple[str, str]

_ENGLISH = "left/right"

# Whole words, as rechteckig, senkrecht, aufrecht, recht and Rechtsanwalt are no sides.
_GERMAN = """
links/rechts linke/rechte linken/rechten linker/rechter linkes/rechtes linkem/rechtem
linksseitig/rechtsseitig linksseitige/rechtsseitige linksseitigen/rechtsseitigen
linksseitiger/rechtsseitiger linksseitiges/rechtsseitiges linksseitigem/rechtsseitigem
linkerhand/rechterhand linkerseits/rechterseits linksherum/rechtsherum linksrum/rechtsrum
linksbündig/rechtsbündig linksaußen/rechtsaußen linkshin/rechtshin
linkshändig/rechtshändig linkshändige/rechtshändige linkshändigen/rechtshändigen
linkshändiger/rechtshändiger linkshänder/rechtshänder linkshänders/rechtshänders
linkshändern/rechtshändern linkshänderin/rechtshänderin linkshänderinnen/rechtshänderinnen
linkskurve/rechtskurve linkskurven/rechtskurven linksabbieger/rechtsabbieger
linksabbiegern/rechtsabbiegern linksverkehr/rechtsverkehr linkspfeil/rechtspfeil
linksdrehung/rechtsdrehung linkslenker/rechtslenker
"""

_FRENCH = """
gauche/droite gauches/droites gauche/droit gauches/droits
gaucher/droitier gauchers/droitiers gauchère/droitière gauchères/droitières
"""
# `gauche` has one form for both genders: after these nouns and adjectives it becomes `droit`.
_FRENCH_MASCULINE = """
angle atrium avant-bras bas biceps bord bras centre champ coin contour coude côté cou-de-pied doigt
fémur flanc gant genou haut hémisphère humérus lobe mollet mur oeil œil orteil os ovaire panneau
pied pilier poignet poing pouce poumon quart radius rein rétroviseur sein sourcil soulier talon
testicule tibia tiers tympan uretère ventricule versant virage
inférieur supérieur antérieur postérieur latéral médial
"""
_FRENCH_MASCULINE_PLURAL = """
angles bords bras coins coudes côtés doigts flancs gants genoux lobes muscles orteils os pieds
poumons quartiers reins seins yeux inférieurs supérieurs antérieurs postérieurs
"""
# Straight ahead, upright, at a right angle.
_FRENCH_UNCHANGED = (
    *("tout droit", "tout droite", "tout droits", "à angle droit", "en angle droit"),
    *("tient droit", "tient droite", "tiennent droit", "tiennent droits", "tiennent droites"),
    *("tenant droit", "tenant droite", "tenir droit", "tenir droite", "assis droit"),
    *("assise droite", "ligne droite", "lignes droites"),
)

_SPANISH = """
izquierda/derecha izquierdas/derechas izquierdo/derecho izquierdos/derechos
zurdo/diestro zurda/diestra zurdos/diestros zurdas/diestras
izqda/dcha izqdo/dcho izda/dcha izdo/dcho
"""
_SPANISH_UNCHANGED = ("todo derecho", "derechos humanos", "derechos de autor")

_ITALIAN = """
sinistra/destra sinistre/destre sinistro/destro sinistri/destri sx/dx
mancino/destrimano mancina/destrimana mancini/destrimani mancine/destrimane
"""

_PORTUGUESE = """
esquerda/direita esquerdas/direitas esquerdo/direito esquerdos/direitos
canhoto/destro canhota/destra canhotos/destros canhotas/destras
"""
_PORTUGUESE_UNCHANGED = ("direitos humanos", "direitos autorais")


def language_pairs(language: Language) -> tuple[Pair, ...]:
    """The pairs of a language, in NFC and lower case, in order of precedence."""
    match language:
        case "english":
            return _pairs(_ENGLISH)
        case "german":
            return _pairs(_GERMAN)
        case "french":
            return (
                *_pairs(_FRENCH),
                *((f"{noun} gauche", f"{noun} droit") for noun in _FRENCH_MASCULINE.split()),
                *((f"{n} gauches", f"{n} droits") for n in _FRENCH_MASCULINE_PLURAL.split()),
                *_unchanged(_FRENCH_UNCHANGED),
            )
        case "spanish":
            return _pairs(_SPANISH) + _unchanged(_SPANISH_UNCHANGED)
        case "italian":
            return _pairs(_ITALIAN)
        case "portuguese":
            return _pairs(_PORTUGUESE) + _unchanged(_PORTUGUESE_UNCHANGED)


def _pairs(lines: str) -> tuple[Pair, ...]:
    found = [pair.partition("/") for pair in lines.split()]
    return tuple((one, other) for one, _, other in found)


def _unchanged(phrases: tuple[str, ...]) -> tuple[Pair, ...]:
    return tuple((phrase, phrase) for phrase in phrases)
