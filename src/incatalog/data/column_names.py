"""What the name of a column says about what it holds: shop exports in four languages."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# How much a name says: it can mean nothing else, it often means that, it may.
CERTAIN, LIKELY, POSSIBLE = 3, 2, 1
# A name that says that the column holds something else.
NEVER = -3

_ID = r"(?: ?(?:ids?|no|nr|num|number|nummer|numero|key|code|codigo|sku|ref|reference|handle))"
_USER = (
    r"(?:user|customer|client|cliente|kunden?|buyer|shopper|member|mitglied|visitor|reviewer|"
    r"account|household|utilisateur|acheteur|usuario|comprador|benutzer|besteller|kaufer|nutzer)"
)
_ITEM = (
    r"(?:item|product|produkt|produit|producto|article|artikel|articulo|movie|film|book|track|"
    r"song|game|listing|variant|material|ware|business|parent)"
)
_SELDOM_USERS = (
    r"\b(?:city|zip|postal|postcode|country|address|phone|group|type|note|segment|age)\b"
)
_TIME = r"(?:date|time|timestamp|datetime|datum|zeit|zeitpunkt|zeitstempel|heure|fecha|hora|day)"
_ORDERED = (
    r"(?:order(?:ed)?|purchased?|created|creation|bestell|bestellt|kauf|gekauft|rechnungs|invoice|"
    r"transaction|commande|achat|pedido|compra|creacion|event|paid|sold|erstellt|review)"
)

# For each role: how much a pattern says that is found in a normalised name. The first that is found
# counts.
_PATTERNS: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    "user": (
        (r"^(?:user|customer) id$", CERTAIN),
        (_SELDOM_USERS, NEVER),
        (rf"^(?:id )?{_USER}{_ID}?$|^(?:id )?(?:le |du )?{_USER}{_ID}$", CERTAIN),
        (rf"^numero (?:de |du )?{_USER}$|^{_ID} {_USER}$", CERTAIN),
        (r"\be ?mail\b|^courriel$|^correo$", LIKELY),
        (rf"\b{_USER}\b.*{_ID}$", LIKELY),
        (rf"\b{_USER}\b|\b{_USER}{_ID}\b", POSSIBLE),
    ),
    "item": (
        (r"^item id$", CERTAIN),
        (rf"\b(?:name|title|titel|titre|nom|nombre|bezeichnung|price|preis|menge|qty|quantity)\b|"
         rf"^{_USER}", NEVER),
        (rf"^(?:line ?)?{_ITEM}{_ID}?$|^{_ID} {_ITEM}$|^(?:parent )?(?:sku|asin|isbn|ean|gtin|upc)"
         rf"(?:{_ID})?$|^stock ?code$", CERTAIN),
        (r"\b(?:sku|asin|isbn|ean|gtin)\b|^(?:handle|reference|referencia|ref)$", LIKELY),
        (rf"\b{_ITEM}\b|^{_ITEM}", LIKELY),
        (rf"^{_ID}$", POSSIBLE),
    ),
    "time": (
        (r"^timestamp$", CERTAIN),
        (r"\b(?:ship\w*|deliver\w*|updated?|cancel\w*|refund\w*|birth\w*|geburts\w*|expir\w*|"
         r"versand\w*|liefer\w*|livraison|envio|due|modified|fulfilled)\b", NEVER),
        (rf"\b{_ORDERED} ?{_TIME}\b|\b{_ORDERED} (?:at|on|am|le|el|gmt)\b|^{_TIME} (?:de |der )?"
         rf"(?:la )?{_ORDERED}$|^(?:unix ?)?(?:review ?)?time(?:stamp)?$", CERTAIN),
        (rf"^{_TIME}$", LIKELY),
        (rf"\b{_TIME}\b|{_TIME}$|\bts\b", POSSIBLE),
    ),
    "item_id": (),
    "title": (
        (r"^title$", CERTAIN),
        (rf"^(?:{_ITEM} ?)?(?:title|titel|titre|titulo|name|bezeichnung|titles?|nom|nombre|"
         rf"libelle|designation|denominacion)$", CERTAIN),
        (rf"^(?:nom|nombre|titre|titulo|libelle) (?:du |de |del )?(?:le |la )?{_ITEM}$", CERTAIN),
        (r"\b(?:brand|vendor|marke|marque|marca|file|image|seo|meta|category|kategorie|shop|"
         r"option\d?|user|customer|collection|supplier)\b", NEVER),
        (r"\b(?:title|titel|titre|titulo|name|bezeichnung|nom|nombre)\b|bezeichnung$|name$|titel$",
         LIKELY),
        (rf"^{_ITEM}$|^description$|^beschreibung$", POSSIBLE),
    ),
    "description": (
        (r"\b(?:seo|meta|category|kategorie|image)\b", NEVER),
        (rf"^(?:{_ITEM} ?)?(?:long ?)?(?:description|beschreibung|descripcion|desc|body(?: html)?|"
         r"details?)$", CERTAIN),
        (r"\b(?:description|beschreibung|descripcion|desc)\b|beschreibung$", LIKELY),
        (r"^(?:text|about|summary|plot|overview|langtext)$", LIKELY),
    ),
    "category": (
        (rf"^(?:{_ITEM} ?)?(?:categor(?:y|ies|ia|ias|ie)|kategorien?|genres?)(?: (?:de|du) "
         rf"{_ITEM})?$", CERTAIN),
        (r"^(?:product |produkt)?(?:type|typ|tipo|kind|art)$|^warengruppe$|^produktgruppe$|"
         r"^departments?$|^abteilung$|^rayon$|^seccion$|^famille$|^familia$|^gruppe$|"
         r"^collections?$|^rubrik$|^section$|^sortiment$|^class$", LIKELY),
        (r"\b(?:categor(?:y|ies|ia|ias|ie)|kategorien?|genres?|department|category)\b", LIKELY),
        (r"^tags?$", POSSIBLE),
    ),
    "price": (
        (r"\b(?:compare|cost|einkauf\w*|purchase|achat|old|before|per)\b", NEVER),
        (r"^(?:regular |variant |unit |sales? |list |verkaufs?)?(?:price|preis|prix|precio)"
         r"(?: (?:eur|usd|gbp|chf|ttc|brutto|gross|de venta))?$|^(?:vk|uvp|msrp|rrp|pvp|"
         r"verkaufspreis|bruttopreis|stuckpreis)$", CERTAIN),
        (r"\b(?:price|preis|prix|precio)\b|preis$", LIKELY),
    ),
    "stock": (
        (r"\b(?:tracker|policy|location|code|min|max|low|threshold|status by)\b", NEVER),
        (r"^(?:in |en )?(?:stock|bestand|lager|lagerbestand|inventory|qty|quantity|menge|"
         r"existencias|available|availability|verfugbar|verfugbarkeit|disponible|disponibilite|"
         r"lieferbar|quantite)(?: (?:level|quantity|qty|menge))?$", CERTAIN),
        (r"\b(?:stock|inventory|bestand|existencias)\b|bestand$", LIKELY),
    ),
    "boost": ((r"^boost$", CERTAIN),),
}  # fmt: skip
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_COMPILED = {
    role: tuple((re.compile(pattern), weight) for pattern, weight in patterns)
    for role, patterns in (_PATTERNS | {"item_id": _PATTERNS["item"]}).items()
}


def normal_name(name: str) -> str:
    """A name in lower case, without accents, its words apart by one space.

    Examples:
        >>> normal_name("KundenNr."), normal_name("Créé_le"), normal_name("Lineitem SKU")
        ('kunden nr', 'cree le', 'lineitem sku')
    """
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[a-z0-9]+", _CAMEL.sub(" ", plain).lower()))


def says(role: str, name: str) -> int:
    """How much the name of a column says that the column has a role; 0 if nothing.

    Args:
        role: user, item or time of orders; item_id, title, description, category, price, stock or
            boost of products.
        name: As it stands in the file.
    """
    words = normal_name(name)
    return next((weight for pattern, weight in _COMPILED[role] if pattern.search(words)), 0)
