"""The rules of Penn Treebank tokens, for text in which stand-ins replace what is beyond ASCII."""

import re

LETTER, DIGIT, SYMBOL, SUPERSCRIPT = "\u00e0", "\u0660", "\u00a7", "\u00b2"
"""What stands for all characters of a class beyond ASCII."""

_L = rf"(?:[A-Za-z{LETTER}]|&[aeiouAEIOU](?:acute|grave|uml);)"
_LD = rf"(?:{_L}|[0-9{DIGIT}])"
_D = f"[0-9{DIGIT}]"
_APOSTROPHE = r"(?:['\u2019]|&apos;)"
_ANY_APOSTROPHE = r"(?:['\u2019`\u2018\u201b]|&apos;)"
_CLITIC = rf"{_APOSTROPHE}(?:[msdMSD]|re|ve|ll|RE|VE|LL|Re|Ve|Ll|rE|vE|lL)"
_PREFIX = rf"[dDoOlL]{_ANY_APOSTROPHE}{_LD}"
_WORD = rf"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*"
_THING = rf"(?:{_PREFIX})?{_LD}+(?:[-_\u2010](?:{_PREFIX})?{_LD}+)*"
_NUMBER = rf"[-+]?(?:{_D}*(?:[.:,]{_D}+)+|{_D}+)"
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"

TITLES = (
    "adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr "
    "drs elec ens ft gen gov govs hon insp invt jos lieut lt maj messrs mfg mlle mme mr mrs ms "
    "msgr mt mtg natl pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc st ste supt "
    "supts treas vs wm"
)
"""Abbreviations that seldom end a sentence."""
ABBREVIATIONS = (
    "al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec "
    "esq est etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich "
    "minn mo mon mont neb nev nov oct okla penn plc ppte pptes ppty pptys pte ptes pty ptys rd "
    "rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"
)
CAPITALIZED = "Az Ark Del Ill La Mass Miss Ore Pa Tex Wash"
"""Abbreviations that begin with a capital letter, as they are words too."""
NUMBERED = "art ca fig figs no nos op pp prop"
_SENTENCE_STARTS = (
    r"A About According Additionally After An As At But Earlier He Her Here However If In It Last "
    r"Many More Mr\. Ms\. Now Once One Other Our She Since So Some Such That The Their Then There "
    r"These They This We What When While Yet You"
)
"""Before these a letter with a dot is the end of a sentence: `vitamin C. The`."""
_EXTENSIONS = (
    "bat bmp c cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png "
    "ppt ps py sql tar txt wav x xml zip"
)


def _one_of(words: str) -> str:
    return f"(?i:{'|'.join(sorted(words.split(), key=len, reverse=True))})"


_ABBREVIATED = "|".join(
    [_one_of(ABBREVIATIONS), *(rf"{word[0]}(?i:{word[1:]})" for word in CAPITALIZED.split())]
)

# Where a rule has a group, the group is the token; what follows it is needed, and counts for the
# length of the match.
RULES = [
    re.compile(rule)
    for rule in (
        # markup
        r"<(?:[!?][A-Za-z-][^>]*|/?[A-Za-z][A-Za-z0-9_:.-]*"
        r"(?: +[A-Za-z][A-Za-z0-9_:.-]*(?: *= *(?:'[^']*'|\"[^\"]*\"))?)* */?) *>",
        r"&#[0-9]+;|&(?:amp|lt|gt|quot|apos|MD|mdash|ndash|nbsp);",
        # contractions: cannot, gonna, 'tis; do/n't; dog/'s; rock 'n' roll
        r"((?i:can|gon|got|lem|gim|wan))(?i:(?<=n)not|(?<=n)na|(?<=t)ta|(?<=m)me)"
        rf"(?!{_LD})",
        r"('(?i:t))(?i:is|was)",
        rf"([A-Za-z]+)(?i:n){_ANY_APOSTROPHE}(?i:t)",
        rf"((?i:n){_ANY_APOSTROPHE}(?i:t))",
        rf"({_WORD}|{_THING}){_CLITIC}",
        rf"({_CLITIC})[^A-Za-z]",
        rf"{_APOSTROPHE}(?i:em|till?|cause)|{_APOSTROPHE}[2-9]0s|{_APOSTROPHE}[nN]{_APOSTROPHE}",
        r"(')[A-Za-z]\S",
        rf"{_CLITIC}|{_APOSTROPHE}[nN]",
        rf"[lLdDjJ]{_APOSTROPHE}|(?i:dunkin|somethin|ol){_APOSTROPHE}",
        rf"[A-HJ-XZn]{_ANY_APOSTROPHE}{_L}{{2,}}|[oO]{_ANY_APOSTROPHE}o",
        rf"{_L}+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z]{_L}*",
        r"(?i:cont'd\.|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l)",
        rf"([yY]{_APOSTROPHE}){_L}",
        rf"('{_D}{{2}})\s",
        # addresses
        r"(?i:https?)://[^\s\"<>|(){}]+[^\s\"<>|.!?(){},-]",
        r"(?:www\.(?:[^\s\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"
        r"|(?:[^\s\"`'<>|!?(){}$,-_]+\.)+(?:com|net|org|edu))"
        r"(?:/[^\s\"<>|()]+[^\s\"<>|.!?(){},-])?",
        r"<?[a-zA-Z0-9][^\s\"<>|(){}]*@(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}.]+>?",
        rf"@[a-zA-Z_][a-zA-Z_0-9]*|\#{_L}+",
        rf"{_LD}+(?:\.{_LD}+)*\.{_one_of(_EXTENSIONS)}(?=[\s.?!,])",
        # words and abbreviations
        _WORD,
        _THING,
        r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+|[cC]\+\+|[cC]\#",
        rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}",
        r"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9]+))+",
        rf"({_WORD}\.|{_THING}\.)[,;:\u3001]",
        rf"[A-Za-z]\.(?!\s+(?:{'|'.join(_SENTENCE_STARTS.split())}|</?[A-Za-z][^>]*>)\s)",
        r"[A-Za-z](?:\.[A-Za-z])+\.|(?i:ph|ed)\.(?i:d)\.?",
        rf"(?:{_ABBREVIATED}|{_one_of(TITLES)})\.",
        rf"((?:{_ABBREVIATED})\.)(?s:..)",
        rf"({_one_of(NUMBERED)}\.)\s?{_D}",
        # numbers
        _NUMBER,
        rf"(?:{_D}{{1,4}}[- ])?{_D}{{1,4}}(?:\\?/|\u2044){_D}{{1,4}}",
        rf"{_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}}",
        r"\([0-9]{2,3}\)[ \u00a0]?[0-9]{3,4}[- \u00a0]?[0-9]{3,5}",
        r"[A-Z]*\$",
        # smileys, and runs of one character
        r"[<>]?[:;=]['o*-]?[()DPdpO\\{@|\[\]](?![A-Za-z0-9])",
        r"[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)"
        r"|\([\^x=~<>']-[\^x=~<>'`]\)",
        r"[!?]+|\*+|\#+|@+|_+|<+|>+|'{2}|-{5,}|-{2,4}|\.{3,4}",
        rf"{SUPERSCRIPT}+",
    )
]
