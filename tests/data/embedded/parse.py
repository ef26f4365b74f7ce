#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# parse.py < STORIES: reads what story.c wrote, checks every agreement (number, gender, what was told or put away before,
# sums, quotes), that the world's facts are told as they are and only words that go together stand together, and adds up -log of the probabilities of the choices as the text shows them, from the lists in story.c and
# probabilities stated here. Prints "stories N bytes N nats X"; exits 1 with the sentence that is not of the language. As
# every choice can be read off the text, X is the entropy of the text itself, not only of one way to make it.
import functools, math, os, re, sys

source = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "story.c")).read()
L = {m[1]: re.findall(r'"([^"]*)"', m[2]) for m in re.finditer(r"\*const (\w+)\[\] = \{(.*?)\};", source, re.S)}
first = lambda name: [x.split("/")[0] for x in L[name]]
second = lambda name: [x.split("/")[1] if "/" in x else x + "s" for x in L[name]]
L["men"], L["women"] = ([stem + end for stem in L["stems"]] for end in ("on", "a"))
nats = 0.0
FEW = 4

def philox(key, c):
    """Philox4x32-10 of Salmon et al. 2011: four words of counter, two of key."""
    for i in range(10):
        k = [(w + i * d) & 0xFFFFFFFF for w, d in zip(key, (0x9E3779B9, 0xBB67AE85))]
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
    return c

@functools.cache
def known(of, respect, nth, n):
    """What the world says of a word: below n. The counter is respect and nth, the stream the word's FNV-1a hash."""
    h = 0xCBF29CE484222325
    for byte in of.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    r = philox((int.from_bytes(b"world"[1:]), ord("w")), [respect * FEW + nth, 0, h & 0xFFFFFFFF, h >> 32])
    return (r[1] << 32 | r[0]) * n >> 64

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

def fact(w, of, respect, name, lst=None):
    """A word that only knowing the world can tell."""
    lst = lst or first(name)
    assert lst[known(of, respect, 0, len(lst))] == w, f"{w} is not known of {of}"

def likely(i, of, respect, name):
    """Word i of a list, one of the FEW that go with another."""
    w = [1 / (k + 3) for k in range(FEW)]
    p = sum(w[k] for k in range(FEW) if known(of, respect, k, len(L[name])) == i) / sum(w)
    assert p > 0, f"{first(name)[i]} does not go with {of}"
    cost(p)
    return first(name)[i]

def yes(is_so, p):
    cost(p if is_so else 1 - p)
    return is_so

def number(w, name, p, many=None):
    """Which noun of a list this is, in one of two forms; many: known by other words."""
    if many is None:
        many = w not in first(name)
    if p is not None:
        yes(many, p)
    return (second(name) if many else first(name)).index(w)

def alt(name, lst=None): return "(?:" + "|".join(sorted(lst or L[name], key=len, reverse=True)) + ")"
def nouns(name): return alt(name, first(name) + second(name))
PLACE = rf"(?: ({alt('where')}) the ({nouns('places')}))?"
ADJ = rf"(?:({alt('sizes')}) )?(?:({alt('colours')}) )?"

OBJECT = rf"(?:({alt('sizes')}) )?(?:({alt('colours')}) )?({nouns('things')})"

def place(w, noun, p, of):
    if yes(w is not None, p):
        likely(L["where"].index(w), of, 30, "where"), likely(number(noun, "places", 0.25), of, 31, "places")

def thing(verb, size, colour, noun):
    """What is done something to: goes with the verb, or with the adjective that goes with the verb."""
    of = verb
    if yes(size is not None, 0.6): of = likely(L["sizes"].index(size), verb, 32, "sizes")
    if yes(colour is not None, 0.2): likely(L["colours"].index(colour), verb, 33, "colours")
    return likely(number(noun, "things", 0.4), of, 34, "things")

class Story:
    def open(self, text):
        m = re.fullmatch(rf"(\w+) was (an?) (\w+) (\w+) from (\w+)\. (\w+), (his|her) (\w+), was (an?) (\w+)", text)
        assert m, "no opening"
        a, art, trait, trade, home, b, his, bond, art2, trade2 = m.groups()
        self.woman = [a in L["women"], b in L["women"]]
        assert self.woman[0] != self.woman[1] and his == ("her" if self.woman[0] else "his")
        cost(0.5)
        for n, w in ((a, self.woman[0]), (b, self.woman[1])): word(n, "women" if w else "men")
        fact(home, a, 1, "homes"), fact(trait, a, 2, "traits"), word(bond, "bonds")
        fact(trade, a, 0, "trades"), fact(trade2, b, 0, "trades")
        assert art == ("an" if trait[0] in "aeiou" else "a") and art2 == ("an" if trade2[0] in "aeiou" else "a")
        self.names, self.trades, self.home, self.subject, self.kept = [a, b], [trade, trade2], home, 0, None

    def who(self, s):
        """Name, pronoun or trade at a sentence's start or after "said"."""
        low = s[0].lower() + s[1:]
        alike = self.trades[0] == self.trades[1]
        if low in ("he", "she"): i, p = self.woman.index(low == "she"), 0.35
        elif s in self.names: i, p = self.names.index(s), 0.65 if alike else 0.45
        else:
            assert not alike, "two of this trade"
            i, p = self.trades.index(low.removeprefix("the ")), 0.2
        yes(i == self.subject, 0.7), cost(p)
        self.subject = i

    FACTS = (r" kept a (\w+) (\w+) called (\w+) in the (\w+)", (3, "colours", 4, "animals", 5, "pets", 6, "stores")), \
        (r" owned an? (\w+) (\w+) and a (\w+) (\w+)", (7, "sizes", 8, "things", 9, "colours", 10, "things")), \
        (r" lived at number (\d+) (\w+) the (\w+)", (11, None, 12, "where", 13, "places")), \
        (r" feared the (\w+) and the (\w+) of (\w+)", (14, "+animals", 15, "+animals", 16, "homes")), \
        (r" was born in (\w+) to a (\w+) named (\w+)", (17, "homes", 18, "trades", 19, "women")), \
        (r" was often (\w+) in the (\w+) and (\w+) at the (\w+)", (20, "states", 21, "places", 22, "evenings", 23, "places"))

    def told(self, t):
        """One of the sentences that hold nothing but facts."""
        for pattern, what in self.FACTS:
            if m := re.fullmatch(r"(\w+|The \w+)" + pattern, t):
                self.who(m[1])
                for w, respect, name in zip(m.groups()[1:], what[::2], what[1::2]):
                    lst = [str(n) for n in range(10, 100)] if name is None else second(name[1:]) if name[0] == "+" else first(name)
                    fact(w, self.names[self.subject], respect, name, lst)
                return True

    def sentence(self, t):
        cost(0.9)
        if yes(self.told(t) is True, 0.35):
            cost(1 / 6)
            return
        cost(1 / 7)
        subject = "(\\w+|The \\w+)"
        if m := re.fullmatch(rf"There were (\d+) ({alt('', second('animals'))}){PLACE}; (\d+) ({alt('leaves')}) away and (\d+) stayed", t):
            n, animal, at, noun, k, leave, left = m.groups()
            assert 3 <= int(n) <= 20 and 1 <= int(k) < int(n) and int(k) + int(left) == int(n)
            cost(1 / 18), cost(1 / (int(n) - 1))
            animal = first("animals")[number(animal, "animals", None, True)]
            word(animal, "animals", first("animals")), place(at, noun, 0.5, animal)
            likely(L["leaves"].index(leave), animal, 29, "leaves")
        elif m := re.fullmatch(rf"The ({nouns('animals')}){PLACE} that the ({nouns('animals')}){PLACE} "
                               rf"({alt('', first('tends') + second('tends'))}) (is|are) ({alt('states')})", t):
            head, a1, p1, inner, a2, p2, verb, be, state = m.groups()
            many_in = verb in first("tends")
            head = first("animals")[number(head, "animals", 0.5, be == "are")]
            word(head, "animals", first("animals")), place(a1, p1, 0.3, head)
            inner = likely(number(inner, "animals", 0.5, many_in), head, 25, "animals")
            place(a2, p2, 0.4, inner), likely(number(verb, "tends", None, not many_in), inner, 26, "tends")
            likely(L["states"].index(state), head, 27, "states")
        elif t.startswith('"'):
            m = re.fullmatch(r'"(.*)," said (.*)', t)
            said = m[1].split(". ")
            for i, s in enumerate(said):
                q = re.fullmatch(rf"I ({alt('wants')}) the {OBJECT}{PLACE}", s)
                assert q, "not what people say"
                word(q[1], "wants"), place(q[5], q[6], 0.3, thing(q[1], q[2], q[3], q[4]))
                if i < 2: yes(i + 1 < len(said), 0.35)
            assert len(said) <= 3
            self.who(m[2])
        elif m := re.fullmatch(rf"(\w+) and (\w+) met ({alt('where')}) the ({alt('', first('places'))}); they were ({alt('evenings')})", t):
            assert [m[1], m[2]] == self.names
            word(m[3], "where"), word(m[4], "places", first("places")), likely(L["evenings"].index(m[5]), m[4], 37, "evenings")
        elif m := re.fullmatch(rf"{subject} put the (\w+) ({alt('', first('things'))}) ({alt('inside')}) the (\w+)", t):
            assert self.kept is None, "something is put away already"
            self.who(m[1]), word(m[2], "sizes"), likely(number(m[3], "things", None, False), m[2], 34, "things")
            word(m[4], "inside"), likely(L["stores"].index(m[5]), m[3], 36, "stores")
            self.kept = m.groups()[1:]
        elif m := re.fullmatch(rf"{subject} looked (\w+) the (\w+) and found the (\w+) (\w+) there", t):
            assert self.kept == (m[4], m[5], m[2], m[3]), "not what was put away"
            self.who(m[1])
            self.kept = None
        elif m := re.fullmatch(rf"{subject} ({alt('acts')}) the {OBJECT}{PLACE}", t):
            self.who(m[1]), likely(L["acts"].index(m[2]), self.trades[self.subject], 24, "acts")
            place(m[6], m[7], 0.6, thing(m[2], m[3], m[4], m[5]))
        elif m := re.fullmatch(rf"{subject} ({alt('deals')}) (.*)", t):
            self.who(m[1]), cost(1 / 3)
            of = likely(L["deals"].index(m[2]), self.trades[self.subject], 28, "deals")
            head, last = m[3].rsplit(" and ", 1)
            items = head.split(", ") + [last]
            assert 2 <= len(items) <= 4
            for i in items:
                n, noun = i.split(" ")
                word(n, "numerals")
                of = likely(number(noun, "things", None, n != "one"), of, 35, "things")
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
