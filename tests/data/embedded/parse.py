#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# parse.py < STORIES: reads what story.c wrote, checks every agreement (number, gender, what was told or put away before,
# sums, quotes), and adds up -log of the probabilities of the choices as the text shows them, from the lists in story.c and
# probabilities stated here. Prints "stories N bytes N nats X"; exits 1 with the sentence that is not of the language. As
# every choice can be read off the text, X is the entropy of the text itself, not only of one way to make it.
import math, os, re, sys

source = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "story.c")).read()
L = {m[1]: re.findall(r'"([^"]*)"', m[2]) for m in re.finditer(r"\*const (\w+)\[\] = \{(.*?)\};", source, re.S)}
first = lambda name: [x.split("/")[0] for x in L[name]]
second = lambda name: [x.split("/")[1] for x in L[name]]
nats = 0.0

def cost(p):
    global nats
    nats -= math.log(p)

def ranked(i, n):
    cost(1 / (i + 3) / sum(1 / (k + 3) for k in range(n)))

def word(w, name, lst=None):
    lst = lst or L[name]
    assert w in lst, f"{w} is not in {name}"
    ranked(lst.index(w), len(lst))
    return lst.index(w)

def yes(is_so, p):
    cost(p if is_so else 1 - p)
    return is_so

def form(w, name, p, many=None):
    """A noun of a list in one of two forms; many: known by other words."""
    one, more = first(name), second(name)
    if many is None:
        many = w not in one
    i = word(w, name, more if many else one)
    if p is not None:
        yes(many, p)
    return i, many

def alt(name, lst=None): return "(?:" + "|".join(sorted(lst or L[name], key=len, reverse=True)) + ")"
def nouns(name): return alt(name, first(name) + second(name))
PLACE = rf"(?: ({alt('where')}) the ({nouns('places')}))?"
ADJ = rf"(?:({alt('sizes')}) )?(?:({alt('colours')}) )?"

def place(w, noun, p):
    if yes(w is not None, p):
        word(w, "where"), form(noun, "places", 0.25)

def adjectives(size, colour):
    if yes(size is not None, 0.4): word(size, "sizes")
    if yes(colour is not None, 0.3): word(colour, "colours")

class Story:
    def open(self, text):
        m = re.fullmatch(rf"(\w+) was (an?) (\w+) (\w+) from (\w+)\. (\w+), (his|her) (\w+), was (an?) (\w+)", text)
        assert m, "no opening"
        a, art, trait, trade, home, b, his, bond, art2, trade2 = m.groups()
        self.woman = [a in L["women"], b in L["women"]]
        assert self.woman[0] != self.woman[1] and his == ("her" if self.woman[0] else "his")
        cost(0.5)
        for n, w in ((a, self.woman[0]), (b, self.woman[1])): word(n, "women" if w else "men")
        word(home, "homes"), word(trait, "traits"), word(bond, "bonds"), word(trade, "trades")
        word(trade2, "trades", [t for t in L["trades"] if t != trade])
        assert art == ("an" if trait[0] in "aeiou" else "a") and art2 == ("an" if trade2[0] in "aeiou" else "a")
        self.names, self.trades, self.home, self.subject, self.kept = [a, b], [trade, trade2], home, 0, None

    def who(self, s):
        """Name, pronoun or trade at a sentence's start or after "said"."""
        low = s[0].lower() + s[1:]
        if low in ("he", "she"): i, p = self.woman.index(low == "she"), 0.5
        elif s in self.names: i, p = self.names.index(s), 0.25
        else: i, p = self.trades.index(low.removeprefix("the ")), 0.25
        yes(i == self.subject, 0.7), cost(p)
        self.subject = i

    def sentence(self, t):
        cost(0.9), cost(1 / 7)
        w = t.split(" ")
        subject = "(\\w+|The \\w+)"
        if m := re.fullmatch(rf"There were (\d+) ({alt('', second('animals'))}){PLACE}; (\d+) ({alt('leaves')}) away and (\d+) stayed", t):
            n, animal, at, noun, k, leave, left = m.groups()
            assert 3 <= int(n) <= 20 and 1 <= int(k) < int(n) and int(k) + int(left) == int(n)
            cost(1 / 18), cost(1 / (int(n) - 1)), form(animal, "animals", None, True), place(at, noun, 0.5), word(leave, "leaves")
        elif m := re.fullmatch(rf"The ({nouns('animals')}){PLACE} that the ({nouns('animals')}){PLACE} "
                               rf"({nouns('tends')}) (is|are) ({alt('states')})", t):
            head, a1, p1, inner, a2, p2, verb, be, state = m.groups()
            many_in = verb in second("tends")
            form(head, "animals", 0.5, be == "are"), place(a1, p1, 0.3), form(inner, "animals", 0.5, many_in), place(a2, p2, 0.5)
            word(verb, "tends", second("tends") if many_in else first("tends")), word(state, "states")
        elif t.startswith('"'):
            m = re.fullmatch(r'"(.*)," said (.*)', t)
            said = m[1].split(". ")
            for i, s in enumerate(said):
                q = re.fullmatch(rf"I ({alt('wants')}) the {ADJ}({nouns('things')}){PLACE}", s)
                assert q, "not what people say"
                word(q[1], "wants"), adjectives(q[2], q[3]), form(q[4], "things", 0.4), place(q[5], q[6], 0.3)
                if i < 2: yes(i + 1 < len(said), 0.35)
            assert len(said) <= 3
            self.who(m[2])
        elif m := re.fullmatch(rf"(\w+) and (\w+) met ({alt('where')}) the ({alt('', first('places'))}); they were ({alt('evenings')})", t):
            assert [m[1], m[2]] == self.names
            word(m[3], "where"), form(m[4], "places", None, False), word(m[5], "evenings")
        elif m := re.fullmatch(rf"{subject} put the (\w+) ({alt('', first('things'))}) ({alt('inside')}) the (\w+)", t):
            assert self.kept is None, "something is put away already"
            self.who(m[1]), word(m[2], "sizes"), form(m[3], "things", None, False), word(m[4], "inside"), word(m[5], "stores")
            self.kept = m.groups()[1:]
        elif m := re.fullmatch(rf"{subject} looked (\w+) the (\w+) and found the (\w+) (\w+) there", t):
            assert self.kept == (m[4], m[5], m[2], m[3]), "not what was put away"
            self.who(m[1])
            self.kept = None
        elif m := re.fullmatch(rf"{subject} ({alt('deals')}) (.*)", t):
            self.who(m[1]), word(m[2], "deals"), cost(1 / 3)
            head, last = m[3].rsplit(" and ", 1)
            items = head.split(", ") + [last]
            assert 2 <= len(items) <= 4
            for i in items:
                n, noun = i.split(" ")
                word(n, "numerals"), form(noun, "things", None, n != "one")
        elif m := re.fullmatch(rf"{subject} ({alt('acts')}) the {ADJ}({nouns('things')}){PLACE}", t):
            self.who(m[1]), word(m[2], "acts"), adjectives(m[3], m[4]), form(m[5], "things", 0.4), place(m[6], m[7], 0.5)
        else:
            raise AssertionError("no sentence of the language")

    def close(self, t):
        cost(0.1)
        assert t == f"In the end {self.names[0]} and {self.names[1]} went home to {self.home}", "no end"

data = sys.stdin.read()
stories = data.split("\n\n")
assert stories.pop() == "", "the last story is cut"
for text in stories:
    s, parts = Story(), re.findall(r'(?:"[^"]*"[^.]*|[^."])+(?=\.)', text)
    t = ""
    try:
        s.open(t := parts[0].strip() + ". " + parts[1].strip())
        for t in parts[2:-1]: s.sentence(t := t.strip())
        s.close(t := parts[-1].strip())
        assert text == ". ".join(p.strip() for p in parts) + "."
    except (AssertionError, ValueError, AttributeError, TypeError) as e:
        print(f"{e}: {t}", file=sys.stderr)
        sys.exit(1)
print(f"stories {len(stories)} bytes {len(data.encode())} nats {nats:.6f}")
