"""The shop's vocabulary: names, places, things. Small lists of our own, chosen to be awkward.

Quotes, apostrophes, commas, umlauts, right-to-left and CJK scripts and emoji are here on
purpose: a loader that survives only ASCII should fail on the demo, not in production.
Appending to a list changes every generated file; raise `FORMAT_VERSION` in folder.py then.
"""

from __future__ import annotations

# (country, weight, given names, family names)
PEOPLE: tuple[tuple[str, int, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "DE",
        24,
        ("Jürgen", "Anna", "Björn", "Lena", "Klaus-Peter", "Zoë", "Uwe", "Annegret"),
        ("Müller", "Weiß", "Schröder", "von der Heide", "Öztürk", "Klein", "Jäger", "Groß"),
    ),
    (
        "FR",
        14,
        ("Hélène", "François", "Anaïs", "Jean-Luc", "Chloé", "Noël"),
        ("Lefèvre", "D'Angelo", "Garçon", "de la Tour", "Martin", "Rösch"),
    ),
    (
        "GB",
        13,
        ("Olivia", "Siân", "George", "Niamh", "Harry", "Amelia"),
        ("O'Brien", "Smith", "Taylor-Jones", "McDonald", "Null", "Ng"),
    ),
    (
        "ES",
        10,
        ("María José", "Íñigo", "Lucía", "Ángel", "Begoña"),
        ("Núñez", "García Márquez", "Ibáñez", "Peña", "López"),
    ),
    (
        "PL",
        9,
        ("Łukasz", "Małgorzata", "Zbigniew", "Agnieszka"),
        ("Wójcik", "Kowalczyk", "Żak", "Błaszczyk"),
    ),
    ("IT", 8, ("Niccolò", "Giulia", "Matteo", "Chiara"), ("Rossi", "Dell'Acqua", "Verità", "Bo")),
    ("SE", 6, ("Åsa", "Göran", "Linnéa"), ("Sjöberg", "Ångström", "Lindqvist")),
    ("TR", 5, ("Çağla", "İbrahim", "Şule"), ("Yıldız", "Gündoğdu", "Öz")),
    ("US", 5, ("James", "True", "Mary Ann"), ("Johnson", "St. James", "García")),
    ("JP", 3, ("美咲", "蓮", "陽子"), ("佐藤", "鈴木", "髙橋")),
    ("GR", 2, ("Ελένη", "Γιώργος"), ("Παπαδόπουλος", "Νικολάου")),
    ("EG", 1, ("محمد", "فاطمة"), ("حسن", "عبد الله")),
)
NICKNAMES = ("Jojo", "Mac", "die Rote", "K. O.", "Änni")
EMOJI = ("🌸", "👩\u200d💻", "🇪🇺", "✨")
CARE_OF = ("c/o Weiß & Söhne", 'c/o "Zum Löwen", 2. Stock', "Apt 4, rear")
MAIL_HOSTS = ("example.com", "example.org", "example.net", "mail.example.com")
SEGMENTS = (("consumer", 80), ("business", 15), ("vip", 5))

# (category, lowest and highest price in whole euros, things)
GOODS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("kitchen", 5, 120, ("Pan, cast iron", "Teapot", 'Bread knife 8"', "Moka pot", "Sieve")),
    ("garden", 4, 300, ("Watering can", "Secateurs", "Hose, 25 m", "Bird house", "Rake")),
    ("books", 8, 60, ("Atlas", "Cook book", "Novel", "Dictionary A–Z", "Crossword")),
    ("toys", 6, 90, ("Train set", "Puzzle, 1,000 pieces", "Kite", 'Teddy "Bruno"')),
    ("clothing", 12, 180, ("Raincoat", "Wool socks", "Hat", "T-shirt <XL>", "Scarf")),
    ("electronics", 15, 900, ("Radio", "Lamp E27", "Headphones", "Charger 65 W", "Scale")),
    ("food", 2, 40, ("Crème brûlée mix", "Jalapeño jam", "Smörgås crackers", "Tea & honey")),
)
MAKERS = ("Åkerlund", "Ümit & Co", "O'Hara", "Nord/Süd", "Löwe", "Piña", "Sato 佐藤", "Basic")
COLOURS = ("red", "night blue", "grün", "crème", "schwarz/weiß", "rosé")
TAGS = ("new", "sale", "eco", "gift", "50% off", "best-seller", "last one!")
DESCRIPTIONS = (
    "Made to last.",
    "Made to last.\nWash by hand, dry flat.",
    'As they say: "once bought, never sold".',
    "Size: 10 × 20 × 30 cm; weight, packed: see below.",
    "Für drinnen und draußen, auch bei −20 °C.",
    "Great gift 🎁 for her, him & them",
    "Path on the box: C:\\parts\\new\ttab",
)

PAYMENT_METHODS = (("card", 52), ("paypal", 24), ("invoice", 14), ("bank_transfer", 10))
REFERRERS = (
    ("", 46),
    ("https://search.example/?q=shop", 30),
    ("https://news.example/deals", 10),
    ("android-app://app.example", 9),
    ("https://mail.example/inbox#42", 5),
)
DEVICES = (
    ("mobile", "Android", 38),
    ("mobile", "iOS", 27),
    ("desktop", "Windows", 20),
    ("desktop", "macOS", 8),
    ("desktop", "Linux", 3),
    ("tablet", "iPadOS", 4),
)
CAMPAIGNS = ("spring-sale", "newsletter 12", "früh & günstig")
SEARCHES = ("tea", 'gift "for him"', "größe xl", "lamp, e27", "20% off", "スカーフ", "kite\\kit")

# Letters of the names above as mail addresses write them. Our own table: Unicode's data changes
# between Python versions.
_LETTERS = {
    "a": "áàâåã",
    "c": "ćčç",
    "e": "éèêë",
    "g": "ğ",
    "i": "íìîïı",
    "l": "ł",
    "n": "ñń",
    "o": "óòôø",
    "s": "śšş",
    "u": "úùû",
    "z": "žżź",
    "ae": "ä",
    "oe": "ö",
    "ue": "ü",
    "ss": "ß",
}
_PLAIN = {ord(letter): plain for plain, letters in _LETTERS.items() for letter in letters}


def mail_name(text: str) -> str:
    """Write a name as the left side of a mail address, in ASCII; "" where no letter is left."""
    plain = text.lower().translate(_PLAIN)
    return "".join(letter for letter in plain if letter.isascii() and letter.isalnum())
