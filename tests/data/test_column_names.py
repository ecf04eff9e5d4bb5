from __future__ import annotations

import pytest

from incatalog.data.column_names import CERTAIN, LIKELY, NEVER, normal_name, says


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("KundenNr.", "kunden nr"),
        ("Lineitem SKU", "lineitem sku"),
        ("Créé_le", "cree le"),
        ("reviewerID", "reviewer id"),
        ("Größe", "grosse"),
        ("§", ""),
    ],
)
def test_names_are_words_without_accents(name: str, expected: str) -> None:
    assert normal_name(name) == expected


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("user", "user_id customer_id CustomerID KundenNr Kundennummer Kunde id_client reviewerID"),
        ("user", "userId acheteur usuario Customer"),
        ("item", "item_id sku SKU Artikelnummer ArtikelNr product_id StockCode asin parent_asin"),
        ("item", "produit id_article movieId Lineitem_sku"),
        ("item_id", "item_id sku Variant_SKU product_id ArtikelNr"),
        (
            "time",
            "timestamp Created_at Order_Date Bestelldatum Kaufdatum date_commande InvoiceDate",
        ),
        ("time", "unixReviewTime ordered_at purchase-date date_created_gmt Bestellt_am"),
        ("title", "title Title Name Bezeichnung Produktname Nom_du_produit Nombre libellé Titel"),
        ("category", "category Categories Kategorie catégorie categoría genre genres"),
        ("price", "price Preis Prix_TTC Precio Regular_price Variant_Price VK Verkaufspreis"),
        ("stock", "stock Bestand Lagerbestand inventory qty Verfügbar en_stock"),
        ("description", "description Beschreibung Body_(HTML) descripción"),
    ],
)
def test_names_of_shop_exports_are_certain(role: str, names: str) -> None:
    assert {name: says(role, name) for name in names.split()} == dict.fromkeys(
        names.split(), CERTAIN
    )


@pytest.mark.parametrize(
    ("role", "name", "expected"),
    [
        ("user", "Customer City", NEVER),
        ("user", "Order ID", 0),
        ("user", "Billing Email", LIKELY),
        ("item", "quantity", NEVER),
        ("item", "Lineitem name", NEVER),
        ("item", "CustomerID", NEVER),
        ("time", "shipped at", NEVER),
        ("time", "price", 0),
        ("title", "SEO Title", NEVER),
        ("title", "brand", NEVER),
        ("price", "Compare At Price", NEVER),
        ("stock", "Variant Inventory Tracker", NEVER),
    ],
)
def test_other_names_are_not(role: str, name: str, expected: int) -> None:
    assert says(role, name) == expected
