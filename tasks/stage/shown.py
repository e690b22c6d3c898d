"""Names and sentences that strangers chose, as a terminal and Markdown may hold them.

Spreadsheets have tasks/evaluation/table.py, and HTML has Jinja's autoescape (tasks/reporting/report.py).
"""


def printable(text: str) -> str:
    """Return a text without what a terminal would obey: each control character is a question mark, but line ends."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def markdown_text(name: str) -> str:
    """Return a name as text that Markdown and HTML leave alone."""
    return "".join(letter if letter.isalnum() or letter in " .,-" else f"&#{ord(letter)};" for letter in name)
