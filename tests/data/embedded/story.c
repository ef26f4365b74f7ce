/* SPDX-License-Identifier: Apache-2.0
 * Writes endless short stories in a small English: the text that the embedded model learns. Every choice is
 * drawn from known probabilities and can be read off the text again, so the text's entropy is known exactly:
 * the floor of any model's loss. What has to be remembered over a distance is never a choice: number
 * agreement across relative clauses, pronouns by gender, trades and homes told once, a thing put somewhere
 * and found there, sums, quotes that close. Usage: story [-s SEED] [-n BYTES] [-v]; -v: totals on stderr.
 * tests/data/embedded/parse.py reads stories back and adds up the same entropy on its own. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/rng.h"

#define STREAM 0x73746f7279u /* "story" */
#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

/* Lists are in order of frequency. A noun is "singular/plural", a verb "he .../they ...". */
static const char *const men[] = {"Tom",  "Peter", "John", "Mark",   "Felix", "Hugo", "Simon", "Oscar",
                                  "Paul", "Emil",  "Karl", "Victor", "Leon",  "Adam", "Bruno", "Stefan"};
static const char *const women[] = {"Anna", "Mary", "Clara", "Ruth",  "Emma", "Nora", "Alice", "Julia",
                                    "Rosa", "Ella", "Greta", "Helen", "Ida",  "Vera", "Lucy",  "Martha"};
static const char *const homes[] = {"Oakford",  "Millbrook", "Redhill",   "Stonebury",
                                    "Ashton",   "Westport",  "Longfield", "Harwick",
                                    "Eastmere", "Brightsea", "Coldwell",  "Kingsdale"};
static const char *const trades[] = {"baker",   "farmer", "teacher", "doctor", "miller", "tailor",
                                     "painter", "sailor", "hunter",  "weaver", "smith",  "potter",
                                     "cook",    "singer", "judge",   "guard"};
static const char *const traits[] = {"young",  "clever", "quiet", "old",   "brave",
                                     "gentle", "lazy",   "proud", "eager", "idle"};
static const char *const bonds[] = {"friend", "neighbour", "cousin", "partner", "rival"};
static const char *const animals[] = {"dog/dogs",       "cat/cats",    "horse/horses", "bird/birds",
                                      "cow/cows",       "goat/goats",  "mouse/mice",   "goose/geese",
                                      "sheep/sheep",    "fox/foxes",   "pig/pigs",     "duck/ducks",
                                      "rabbit/rabbits", "wolf/wolves", "hen/hens",     "donkey/donkeys"};
static const char *const things[] = {"basket/baskets",   "box/boxes",      "key/keys",     "lamp/lamps",
                                     "coat/coats",       "book/books",     "knife/knives", "letter/letters",
                                     "apple/apples",     "candle/candles", "rope/ropes",   "bell/bells",
                                     "cup/cups",         "hat/hats",       "loaf/loaves",  "chair/chairs",
                                     "blanket/blankets", "mirror/mirrors", "ring/rings",   "shoe/shoes",
                                     "brush/brushes",    "ladder/ladders", "map/maps",     "wheel/wheels"};
static const char *const places[] = {
    "mill/mills",     "river/rivers", "bridge/bridges",   "garden/gardens", "barn/barns", "church/churches",
    "market/markets", "well/wells",   "tower/towers",     "field/fields",   "gate/gates", "stable/stables",
    "tavern/taverns", "hill/hills",   "orchard/orchards", "school/schools"};
static const char *const stores[] = {"drawer",  "chest", "cellar", "cupboard", "sack",
                                     "kitchen", "shed",  "cart",   "trunk",    "attic"};
static const char *const sizes[] = {"small",  "large",  "heavy",   "broken", "dusty",
                                    "narrow", "wooden", "ancient", "plain",  "shiny"};
static const char *const colours[] = {"red", "green", "black", "white", "blue", "yellow", "brown", "grey"};
static const char *const states[] = {"tired", "hungry", "happy",  "lost",  "cold",  "calm",
                                     "wet",   "afraid", "asleep", "ready", "angry", "late"};
static const char *const acts[] = {"carried", "took",    "dropped", "wanted", "lost", "cleaned",
                                   "hid",     "saw",     "needed",  "broke",  "drew", "kept",
                                   "moved",   "watched", "painted", "mended"};
static const char *const tends[] = {"feeds/feed",    "sees/see",     "follows/follow", "knows/know",
                                    "watches/watch", "calls/call",   "fears/fear",     "misses/miss",
                                    "hears/hear",    "chases/chase", "guards/guard",   "likes/like"};
static const char *const deals[] = {"bought", "sold", "counted", "packed", "ordered", "borrowed"};
static const char *const where[] = {"near", "behind", "beside", "at", "beyond", "below"};
static const char *const inside[] = {"in", "under", "behind"};
static const char *const wants[] = {"want", "need", "found", "sold", "lost", "like"};
static const char *const leaves[] = {"ran", "went", "walked", "turned"};
static const char *const evenings[] = {"tired", "happy", "silent", "hungry", "proud", "content"};
static const char *const numerals[] = {"two", "three", "one",   "four", "five",
                                       "six", "seven", "eight", "nine", "ten"};

struct person {
    const char *name, *trade;
    bool woman;
};

static struct {
    uint64_t seed, draws;
    double nats;
    long bytes;
    struct person who[2];
    const char *home;
    int subject;             /* of the sentence before */
    const char *kept, *size; /* what was put away; NULL: nothing is */
    const char *in, *store;
} g;

static void say(const char *s)
{
    fputs(s, stdout);
    g.bytes += (long)strlen(s);
}

static void say_capital(const char *s)
{
    char first[2] = {(char)(*s >= 'a' && *s <= 'z' ? *s - 'a' + 'A' : *s), 0};
    say(first);
    say(s + 1);
}

static double draw(void)
{
    return rng_uniform(g.seed, STREAM, g.draws++);
}

static int even(int n)
{
    int i = (int)(draw() * n);
    g.nats += log(n);
    return i < n ? i : n - 1;
}

static bool chance(double p)
{
    bool yes = draw() < p;
    g.nats -= log(yes ? p : 1 - p);
    return yes;
}

/* Index i of n with weight 1 / (i + 3). */
static int ranked(int n)
{
    double sum = 0, at;
    int i = 0;
    for (int k = 0; k < n; k++) sum += 1.0 / (k + 3);
    for (at = draw() * sum; i < n - 1 && at >= 1.0 / (i + 3); i++) at -= 1.0 / (i + 3);
    g.nats -= log(1.0 / (i + 3) / sum);
    return i;
}
#define PICK(list) ((list)[ranked(COUNT(list))])

/* The first half of "singular/plural", or the second. */
static void say_form(const char *pair, bool second)
{
    const char *slash = strchr(pair, '/');
    char form[32];
    snprintf(form, sizeof form, "%.*s", second ? 31 : (int)(slash - pair), second ? slash + 1 : pair);
    say(form);
}

static const char *article(const char *next)
{
    return strchr("aeiou", *next) ? "an " : "a ";
}

/* " near the mill", sometimes nothing */
static void maybe_place(double p)
{
    if (!chance(p)) return;
    say(" "), say(PICK(where)), say(" the ");
    const char *pair = PICK(places);
    say_form(pair, chance(0.25));
}

static void adjectives(void)
{
    if (chance(0.4)) say(PICK(sizes)), say(" ");
    if (chance(0.3)) say(PICK(colours)), say(" ");
}

/* Names, pronoun or trade. */
static void subject(bool capital)
{
    g.subject = chance(0.7) ? g.subject : !g.subject;
    const struct person *p = &g.who[g.subject];
    double x = draw();
    g.nats -= log(x < 0.5 ? 0.5 : 0.25);
    if (x < 0.5)
        (capital ? say_capital : say)(p->woman ? "she" : "he");
    else if (x < 0.75)
        say(p->name);
    else
        say(capital ? "The " : "the "), say(p->trade);
}

/* ---- sentences ---- */

static void open_story(void)
{
    bool woman = chance(0.5);
    int trade = ranked(COUNT(trades)), other = ranked(COUNT(trades) - 1);
    for (int i = 0; i < 2; i++)
        g.who[i].woman = i ? !woman : woman, g.who[i].name = g.who[i].woman ? PICK(women) : PICK(men);
    g.who[0].trade = trades[trade], g.who[1].trade = trades[other + (other >= trade)];
    g.home = PICK(homes), g.subject = 0, g.kept = NULL;
    const char *trait = PICK(traits);
    say(g.who[0].name), say(" was "), say(article(trait)), say(trait), say(" "), say(g.who[0].trade);
    say(" from "), say(g.home), say(". "), say(g.who[1].name), say(", "), say(woman ? "her " : "his ");
    say(PICK(bonds)), say(", was "), say(article(g.who[1].trade)), say(g.who[1].trade), say(".");
}

static void act(void)
{
    subject(true), say(" "), say(PICK(acts)), say(" the "), adjectives();
    const char *pair = PICK(things);
    say_form(pair, chance(0.4)), maybe_place(0.5), say(".");
}

/* The verb of the clause follows its own noun, the last one the first: "The dogs that the hen near the mills
 * fears are wet." */
static void relative(void)
{
    const char *head = PICK(animals);
    bool many = chance(0.5);
    say("The "), say_form(head, many), maybe_place(0.3), say(" that the ");
    const char *inner = PICK(animals);
    bool many_inner = chance(0.5);
    say_form(inner, many_inner), maybe_place(0.5), say(" "), say_form(PICK(tends), many_inner);
    say(many ? " are " : " is "), say(PICK(states)), say(".");
}

static void quote(void)
{
    bool more = true;
    say("\"");
    for (int i = 0; i < 3 && more; i++) {
        say(i ? ". I " : "I "), say(PICK(wants)), say(" the "), adjectives();
        const char *pair = PICK(things);
        say_form(pair, chance(0.4)), maybe_place(0.3);
        more = i < 2 && chance(0.35);
    }
    say(",\" said "), subject(false), say(".");
}

static void list(void)
{
    int n = 2 + even(3);
    subject(true), say(" "), say(PICK(deals)), say(" ");
    for (int i = 0; i < n; i++) {
        const char *numeral = PICK(numerals), *pair = PICK(things);
        say(i == 0 ? "" : i < n - 1 ? ", " : " and "), say(numeral), say(" ");
        say_form(pair, strcmp(numeral, "one") != 0);
    }
    say(".");
}

static void sum(void)
{
    int n = 3 + even(18), k = 1 + even(n - 1);
    char s[64];
    snprintf(s, sizeof s, "There were %d ", n);
    say(s), say_form(PICK(animals), true), maybe_place(0.5);
    snprintf(s, sizeof s, "; %d %s away and %d stayed.", k, PICK(leaves), n - k);
    say(s);
}

static void put_away(void)
{
    subject(true);
    g.size = PICK(sizes), g.kept = PICK(things), g.in = PICK(inside), g.store = PICK(stores);
    say(" put the "), say(g.size), say(" "), say_form(g.kept, false), say(" "), say(g.in), say(" the "),
        say(g.store), say(".");
}

static void find(void)
{
    subject(true), say(" looked "), say(g.in), say(" the "), say(g.store), say(" and found the ");
    say(g.size), say(" "), say_form(g.kept, false), say(" there.");
    g.kept = NULL;
}

static void both(void)
{
    say(g.who[0].name), say(" and "), say(g.who[1].name), say(" met "), say(PICK(where)), say(" the ");
    say_form(PICK(places), false), say("; they were "), say(PICK(evenings)), say(".");
}

static void story(void)
{
    static void (*const kinds[])(void) = {act, relative, quote, list, sum, both, put_away};
    open_story();
    for (; !chance(0.1);) {
        int k = even(COUNT(kinds)); /* the last kind finds what was put away, if something was */
        say(" "), (k == COUNT(kinds) - 1 && g.kept ? find : kinds[k])();
    }
    say(" In the end "), say(g.who[0].name), say(" and "), say(g.who[1].name), say(" went home to "),
        say(g.home), say(".\n\n");
}

int main(int argc, char **argv)
{
    long want = 1000, stories = 0;
    bool totals = false;
    for (int c; (c = getopt(argc, argv, "s:n:v")) != -1;)
        if (c == 's')
            g.seed = strtoull(optarg, NULL, 10);
        else if (c == 'n')
            want = strtol(optarg, NULL, 10);
        else if (c == 'v')
            totals = true;
        else
            return 2;
    for (; g.bytes < want; stories++) story();
    if (totals) fprintf(stderr, "stories %ld bytes %ld nats %.6f\n", stories, g.bytes, g.nats);
    return fflush(stdout) || ferror(stdout) ? 74 : 0;
}
