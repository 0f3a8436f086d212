"""Language codes of ISO 639: two letters, three letters, and the twenty languages that have two three-letter codes."""

from __future__ import annotations

from typing import Final

UNDETERMINED: Final = "und"

# ISO 639-1 with its ISO 639-2/T code.
_PAIRS: Final = """
aa aar ab abk ae ave af afr ak aka am amh an arg ar ara as asm av ava ay aym az aze ba bak be bel bg bul bh bih bi bis bm bam
bn ben bo bod br bre bs bos ca cat ce che ch cha co cos cr cre cs ces cu chu cv chv cy cym da dan de deu dv div dz dzo ee ewe
el ell en eng eo epo es spa et est eu eus fa fas ff ful fi fin fj fij fo fao fr fra fy fry ga gle gd gla gl glg gn grn gu guj
gv glv ha hau he heb hi hin ho hmo hr hrv ht hat hu hun hy hye hz her ia ina id ind ie ile ig ibo ii iii ik ipk io ido is isl
it ita iu iku ja jpn jv jav ka kat kg kon ki kik kj kua kk kaz kl kal km khm kn kan ko kor kr kau ks kas ku kur kv kom kw cor
ky kir la lat lb ltz lg lug li lim ln lin lo lao lt lit lu lub lv lav mg mlg mh mah mi mri mk mkd ml mal mn mon mr mar ms msa
mt mlt my mya na nau nb nob nd nde ne nep ng ndo nl nld nn nno no nor nr nbl nv nav ny nya oc oci oj oji om orm or ori os oss
pa pan pi pli pl pol ps pus pt por qu que rm roh rn run ro ron ru rus rw kin sa san sc srd sd snd se sme sg sag sh hbs si sin
sk slk sl slv sm smo sn sna so som sq sqi sr srp ss ssw st sot su sun sv swe sw swa ta tam te tel tg tgk th tha ti tir tk tuk
tl tgl tn tsn to ton tr tur ts tso tt tat tw twi ty tah ug uig uk ukr ur urd uz uzb ve ven vi vie vo vol wa wln wo wol xh xho
yi yid yo yor za zha zh zho zu zul
"""

# ISO 639-2/B codes where they differ, with the /T code.
_BIBLIOGRAPHIC_PAIRS: Final = """
alb sqi arm hye baq eus bur mya chi zho cze ces dut nld fre fra geo kat ger deu gre ell ice isl mac mkd mao mri may msa per fas
rum ron slo slk tib bod wel cym
"""

_ENGLISH_NAMES: Final = {
    "ara": "Arabic",
    "bul": "Bulgarian",
    "cat": "Catalan",
    "ces": "Czech",
    "dan": "Danish",
    "deu": "German",
    "ell": "Greek",
    "eng": "English",
    "est": "Estonian",
    "eus": "Basque",
    "fas": "Persian",
    "fin": "Finnish",
    "fra": "French",
    "gle": "Irish",
    "heb": "Hebrew",
    "hin": "Hindi",
    "hrv": "Croatian",
    "hun": "Hungarian",
    "ind": "Indonesian",
    "isl": "Icelandic",
    "ita": "Italian",
    "jpn": "Japanese",
    "kor": "Korean",
    "lat": "Latin",
    "lav": "Latvian",
    "lit": "Lithuanian",
    "mkd": "Macedonian",
    "msa": "Malay",
    "nld": "Dutch",
    "nor": "Norwegian",
    "pol": "Polish",
    "por": "Portuguese",
    "ron": "Romanian",
    "rus": "Russian",
    "slk": "Slovak",
    "slv": "Slovenian",
    "spa": "Spanish",
    "sqi": "Albanian",
    "srp": "Serbian",
    "swe": "Swedish",
    "tam": "Tamil",
    "tha": "Thai",
    "tur": "Turkish",
    "ukr": "Ukrainian",
    "und": "Undetermined",
    "urd": "Urdu",
    "vie": "Vietnamese",
    "zho": "Chinese",
}


def _table(pairs: str) -> dict[str, str]:
    words = pairs.split()
    return dict(zip(words[::2], words[1::2], strict=True))


TWO_TO_THREE: Final = _table(_PAIRS)
_THREE_TO_TWO: Final = {three: two for two, three in TWO_TO_THREE.items()}
_BIBLIOGRAPHIC: Final = _table(_BIBLIOGRAPHIC_PAIRS)


def canonical(code: str) -> str:
    """Return the ISO 639-2/T code for a two- or three-letter code or a tag such as "en-US"; "und" for what is none.

    Three letters that are in no table come back in lower case: ISO 639-3 has 8000 of them.
    """
    word = code.replace("_", "-").partition("-")[0].lower()
    if len(word) == 2:
        return TWO_TO_THREE.get(word, UNDETERMINED)
    if len(word) == 3 and word.isascii() and word.isalpha():
        return _BIBLIOGRAPHIC.get(word, word)
    return UNDETERMINED


def tag(code: str) -> str:
    """Return the tag of a language as RFC 5646 section 2.2.1 wants it, the shortest code that there is; "" for none."""
    language = canonical(code)
    return "" if language == UNDETERMINED else _THREE_TO_TWO.get(language, language)


def english_name(code: str) -> str:
    """Return the English name of a language, or the code itself where it is not a widely used one."""
    return _ENGLISH_NAMES.get(canonical(code), code)
