# SPDX-License-Identifier: Apache-2.0
"""texts.py WHEEL DIR: two texts of English prose for tests/interop/showpiece.sh, of the test data in gensim's wheel (pip download
--no-deps gensim==4.4.0; needs mwparserfromhell): DIR/news.txt, 300 news stories, for the quantizers, and DIR/articles.txt,
pieces of about a hundred encyclopedia articles without their markup, for nt-tweak."""
import bz2
import html
import random
import re
import sys
import zipfile

import mwparserfromhell

wheel, out = zipfile.ZipFile(sys.argv[1]), sys.argv[2]
DATA = "gensim/test/test_data/"
ARTICLES = DATA + "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


def paragraphs(markup):
    """Whole paragraphs of prose: no lists, tables, captions, headings or pieces of sentences."""
    markup = re.sub(r"<ref[^>/]*/>|<ref.*?</ref>|\{\|.*?\|\}", "", markup, flags=re.S)
    for p in mwparserfromhell.parse(markup).strip_code().split("\n"):
        p = re.sub(r"\s+", " ", re.sub(r"<[^>]+>|\(\s*[;,]?\s*\)", "", p)).strip()
        if len(p) >= 200 and p[0] not in "*#|!:;{}<=" and "|" not in p and re.search(r"[.!?][\"')]?$", p):
            yield p


def pieces(texts):
    """A few consecutive paragraphs each, about a window of nt-tweak long."""
    for text in texts:
        piece = []
        for p in paragraphs(text):
            piece.append(p)
            if sum(map(len, piece)) > 1500:
                yield "\n\n".join(piece)
                piece = []


def main():
    news = wheel.read(DATA + "lee_background.cor").decode("utf-8", "replace")
    open(out + "/news.txt", "w").write(re.sub("\n+", "\n\n", news))
    pages = re.findall(r"<text[^>]*>(.*?)</text>", bz2.decompress(wheel.read(ARTICLES)).decode(), re.S)
    chosen = list(pieces(html.unescape(p) for p in pages if "#REDIRECT" not in p[:400].upper()))
    random.Random(1).shuffle(chosen)
    open(out + "/articles.txt", "w").write("\n\n".join(chosen) + "\n")


main()
