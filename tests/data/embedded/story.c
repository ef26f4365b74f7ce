/* SPDX-License-Identifier: Apache-2.0
 * Writes endless short stories in a small English: the text that the embedded model learns. Every choice is
 * drawn from known probabilities and can be read off the text again, so the text's entropy is known exactly:
 * the floor of any model's loss. What has to be remembered over a distance is never a choice: number
 * agreement across relative clauses, pronouns by gender, a thing put somewhere and found there, sums, quotes
 * that close. Nor is what has to be known: stories of every seed tell of one world, in which each person's
 * trade, home, animal and so on are drawn once and for all. Usage: story [-s SEED] [-n BYTES] [-v]; -v:
 * totals on stderr. tests/data/embedded/parse.py reads stories back and adds up the same entropy on its own.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/rng.h"

#define STREAM 0x73746f7279u /* "story" */
#define WORLD 0x776f726c64u  /* "world": the seed of what is known of people */
#define FEW 4                /* words that go with a word */
#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

/* Lists are in order of frequency. An s makes the plural of a noun and the third person of a verb, where no
 * "noun/plural" or "verb/person" says otherwise. Names are a stem and -on, or -a for a woman. */
static const char *const stems[] = {"Mar", "Tor", "Bel", "Dan", "Kel",  "Hal",  "Ros", "Cor",
                                    "Lor", "Gar", "Fen", "Al",  "Bran", "Clar", "Dor", "El",
                                    "Fal", "Gil", "Hel", "Is",  "Jor",  "Mir",  "Nor", "Or",
                                    "Per", "Ral", "Sel", "Ul",  "Vel",  "Wil",  "Yor", "Zan"};
static const char *const pets[] = {"Moss", "Pip",   "Dusty", "Patch", "Bramble", "Pepper", "Honey", "Star",
                                   "Ruby", "Misty", "Sandy", "Duke",  "Rusty",   "Daisy",  "Poppy", "Socks"};
static const char *const homes[] = {"Oakford",  "Millbrook", "Redhill",   "Stonebury",
                                    "Ashton",   "Westport",  "Longfield", "Harwick",
                                    "Eastmere", "Brightsea", "Coldwell",  "Kingsdale"};
static const char *const trades[] = {"baker",   "farmer", "teacher", "doctor", "miller", "tailor",
                                     "painter", "sailor", "hunter",  "weaver", "smith",  "potter",
                                     "cook",    "singer", "judge",   "guard"};
static const char *const traits[] = {"young",  "clever", "quiet", "old",   "brave",
                                     "gentle", "lazy",   "proud", "eager", "idle"};
static const char *const bonds[] = {"friend", "neighbour", "cousin", "partner", "rival"};
static const char *const animals[] = {
    "dog",         "cat",       "horse",  "bird",  "cow",    "goat",        "mouse/mice",  "goose/geese",
    "sheep/sheep", "fox/foxes", "pig",    "duck",  "rabbit", "wolf/wolves", "hen",         "donkey",
    "lion",        "bear",      "frog",   "snake", "owl",    "crow",        "swan",        "deer/deer",
    "otter",       "badger",    "beaver", "mole",  "hare",   "lamb",        "calf/calves", "bull",
    "ram",         "ox/oxen",   "eagle",  "hawk",  "raven",  "robin",       "sparrow",     "turtle",
    "lizard",      "spider",    "beetle", "bee",   "ant",    "moth",        "trout",       "salmon"};
static const char *const things[] = {
    "basket",       "box/boxes",  "key",           "lamp",          "coat",     "book",
    "knife/knives", "letter",     "apple",         "candle",        "rope",     "bell",
    "cup",          "hat",        "loaf/loaves",   "chair",         "blanket",  "mirror",
    "ring",         "shoe/shoes", "brush/brushes", "ladder",        "map",      "wheel",
    "hammer",       "needle",     "bucket",        "barrel",        "bottle",   "kettle",
    "spoon",        "fork",       "plate",         "bowl",          "jug",      "pot",
    "pan",          "tray",       "table",         "bench/benches", "stool",    "pillow",
    "curtain",      "carpet",     "clock",         "watch/watches", "lantern",  "torch/torches",
    "flute",        "drum",       "violin",        "harp",          "whistle",  "coin",
    "purse",        "belt",       "glove",         "boot",          "sock",     "scarf/scarves",
    "shirt",        "button",     "thread",        "spade",         "rake",     "axe",
    "saw",          "nail",       "hook",          "chain",         "lock",     "saddle",
    "whip",         "anchor",     "sail",          "oar",           "net",      "boat",
    "raft",         "kite",       "ball",          "doll",          "puppet",   "card",
    "pencil",       "feather",    "stamp",         "poster",        "flag",     "shield",
    "sword",        "arrow",      "helmet",        "crown",         "necklace", "bracelet",
    "pearl",        "stone",      "brick",         "plank",         "log",      "branch/branches",
    "leaf/leaves",  "seed",       "acorn",         "pear",          "plum",     "cherry/cherries",
    "lemon",        "melon",      "onion",         "carrot",        "turnip",   "bean",
    "nut",          "cake",       "pie",           "biscuit",       "cheese",   "egg",
    "pancake",      "sausage",    "jar",           "vase",          "parcel",   "ribbon",
    "cushion",      "broom",      "bag",           "suitcase",      "umbrella", "compass/compasses",
    "medal",        "trumpet",    "pipe",          "ticket"};
static const char *const places[] = {"mill",
                                     "river",
                                     "bridge",
                                     "garden",
                                     "barn",
                                     "church/churches",
                                     "market",
                                     "well",
                                     "tower",
                                     "field",
                                     "gate",
                                     "stable",
                                     "tavern",
                                     "hill",
                                     "orchard",
                                     "school",
                                     "castle",
                                     "forest",
                                     "cave",
                                     "lake",
                                     "pond",
                                     "meadow",
                                     "valley",
                                     "harbour",
                                     "beach/beaches",
                                     "island",
                                     "village",
                                     "square",
                                     "station",
                                     "palace",
                                     "temple",
                                     "library/libraries",
                                     "museum",
                                     "theatre",
                                     "prison",
                                     "farm",
                                     "quarry/quarries",
                                     "canal",
                                     "fountain",
                                     "wall",
                                     "road",
                                     "path",
                                     "cottage",
                                     "hut",
                                     "inn",
                                     "shop",
                                     "forge",
                                     "bakery/bakeries"};
static const char *const stores[] = {"drawer",  "chest", "cellar", "cupboard", "sack",
                                     "kitchen", "shed",  "cart",   "trunk",    "attic"};
static const char *const sizes[] = {
    "small",  "large",   "heavy",  "broken",  "dusty",    "narrow",  "wooden",  "ancient",
    "plain",  "shiny",   "round",  "square",  "flat",     "long",    "short",   "thick",
    "thin",   "light",   "dark",   "bright",  "dull",     "clean",   "dirty",   "smooth",
    "rough",  "sharp",   "blunt",  "soft",    "hard",     "warm",    "cold",    "wet",
    "dry",    "empty",   "full",   "old",     "new",      "cheap",   "dear",    "rare",
    "common", "strange", "pretty", "ugly",    "sweet",    "sour",    "bitter",  "fresh",
    "rotten", "golden",  "silver", "copper",  "iron",     "woollen", "silken",  "leather",
    "paper",  "hollow",  "solid",  "crooked", "straight", "striped", "spotted", "faded"};
static const char *const colours[] = {"red", "green", "black", "white", "blue", "yellow", "brown", "grey"};
static const char *const states[] = {
    "tired", "hungry", "happy",  "lost",   "cold", "calm",   "wet",  "afraid", "asleep", "ready",  "angry",
    "late",  "brave",  "clever", "quiet",  "old",  "gentle", "lazy", "proud",  "eager",  "idle",   "loud",
    "blind", "lame",   "sick",   "strong", "weak", "fast",   "slow", "tame",   "wild",   "thirsty"};
static const char *const acts[] = {
    "carried", "took",   "dropped",  "wanted",  "lost",     "cleaned", "hid",     "saw",
    "needed",  "broke",  "drew",     "kept",    "moved",    "watched", "painted", "mended",
    "threw",   "caught", "found",    "bought",  "sold",     "lent",    "stole",   "burned",
    "buried",  "washed", "polished", "wrapped", "opened",   "closed",  "lifted",  "pushed",
    "pulled",  "shook",  "counted",  "weighed", "measured", "touched", "kicked",  "tied",
    "cut",     "bent",   "filled",   "emptied", "showed",   "gave",    "brought", "sent"};
static const char *const tends[] = {"feed", "see",         "follow", "know",  "watch/watches", "call",
                                    "fear", "miss/misses", "hear",   "chase", "guard",         "like",
                                    "hate", "love",        "help",   "hunt",  "trust",         "need",
                                    "want", "avoid",       "admire", "tease", "warn",          "greet"};
static const char *const deals[] = {"bought", "sold", "counted", "packed", "ordered", "borrowed"};
static const char *const where[] = {"near", "behind", "beside", "at", "beyond", "below"};
static const char *const inside[] = {"in", "under", "behind"};
static const char *const wants[] = {"want", "need", "found", "sold", "lost", "like"};
static const char *const leaves[] = {"ran", "went", "walked", "turned"};
static const char *const evenings[] = {"tired", "happy", "silent", "hungry", "proud", "content"};
static const char *const numerals[] = {"two", "three", "one",   "four", "five",
                                       "six", "seven", "eight", "nine", "ten"};

struct person {
    const char *trade;
    char name[16];
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

/* What the world says of a word in some respect: index below n. */
static int known(const char *of, int respect, int nth, int n)
{
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a */
    for (; *of && *of != '/'; of++) h = (h ^ (uint8_t)*of) * 0x100000001B3u;
    return (int)rng_below(WORLD, h, (uint64_t)(respect * FEW + nth), (uint64_t)n);
}

/* One of the few of n that go with a word. */
static int likely(const char *of, int respect, int n)
{
    double sum = 0, p = 0, at = draw();
    int which = -1;
    for (int k = 0; k < FEW; k++) sum += 1.0 / (k + 3);
    for (int k = 0; k < FEW && which < 0; k++)
        if ((at -= 1.0 / (k + 3) / sum) < 0 || k == FEW - 1) which = known(of, respect, k, n);
    for (int k = 0; k < FEW; k++)
        if (known(of, respect, k, n) == which) p += 1.0 / (k + 3) / sum;
    g.nats -= log(p);
    return which;
}
#define KNOWN(of, respect, list) ((list)[known(of, respect, 0, COUNT(list))])
#define LIKELY(of, respect, list) ((list)[likely(of, respect, COUNT(list))])

/* The first half of "singular/plural", or the second; "singular": with an s. */
static void say_form(const char *pair, bool second)
{
    const char *slash = strchr(pair, '/');
    char form[32];
    if (!slash)
        snprintf(form, sizeof form, "%s%s", pair, second ? "s" : "");
    else
        snprintf(form, sizeof form, "%.*s", second ? 31 : (int)(slash - pair), second ? slash + 1 : pair);
    say(form);
}

static const char *article(const char *next)
{
    return strchr("aeiou", *next) ? "an " : "a ";
}

/* " near the mill", sometimes nothing */
static void maybe_place(double p, const char *of)
{
    if (!chance(p)) return;
    say(" "), say(LIKELY(of, 30, where)), say(" the ");
    const char *pair = LIKELY(of, 31, places);
    say_form(pair, chance(0.25));
}

/* What goes with a verb, and what goes with that. */
static const char *object(const char *verb, double many)
{
    const char *of = verb;
    if (chance(0.6)) say(of = LIKELY(of, 32, sizes)), say(" ");
    if (chance(0.2)) say(LIKELY(verb, 33, colours)), say(" ");
    const char *pair = LIKELY(of, 34, things);
    say_form(pair, chance(many));
    return pair;
}

/* Someone by number: men, then women. */
static const char *name_of(int number, char name[16])
{
    int n = COUNT(stems);
    snprintf(name, 16, "%s%s", stems[number % n], number < n ? "on" : "a");
    return name;
}

/* Name, pronoun or trade, if the trade tells them apart. */
static void subject(bool capital)
{
    g.subject = chance(0.7) ? g.subject : !g.subject;
    const struct person *p = &g.who[g.subject];
    double x = draw();
    bool alike = strcmp(g.who[0].trade, g.who[1].trade) == 0;
    g.nats -= log(x < 0.35 ? 0.35 : alike ? 0.65 : x < 0.8 ? 0.45 : 0.2);
    if (x < 0.35)
        (capital ? say_capital : say)(p->woman ? "she" : "he");
    else if (x < 0.8 || alike)
        say(p->name);
    else
        say(capital ? "The " : "the "), say(p->trade);
}

/* ---- sentences ---- */

static void open_story(void)
{
    bool woman = chance(0.5);
    for (int i = 0; i < 2; i++) {
        struct person *p = &g.who[i];
        p->woman = i ? !woman : woman;
        name_of(p->woman * COUNT(stems) + ranked(COUNT(stems)), p->name);
        p->trade = KNOWN(p->name, 0, trades);
    }
    const struct person *p = g.who;
    g.subject = 0, g.kept = NULL, g.home = KNOWN(p->name, 1, homes);
    const char *trait = KNOWN(p->name, 2, traits);
    say(p->name), say(" was "), say(article(trait)), say(trait), say(" "), say(p->trade);
    say(" from "), say(g.home), say(". "), say(p[1].name), say(", "), say(woman ? "her " : "his ");
    say(PICK(bonds)), say(", was "), say(article(p[1].trade)), say(p[1].trade), say(".");
}

/* Nothing in it is a choice but who it is of, and which of six. */
static void tell(void)
{
    int kind = even(6);
    char s[32];
    subject(true);
    const struct person *p = &g.who[g.subject];
    if (kind == 0) {
        say(" kept a "), say(KNOWN(p->name, 3, colours)), say(" "),
            say_form(KNOWN(p->name, 4, animals), false);
        say(" called "), say(KNOWN(p->name, 5, pets)), say(" in the "), say(KNOWN(p->name, 6, stores));
    } else if (kind == 1) {
        const char *size = KNOWN(p->name, 7, sizes);
        say(" owned "), say(article(size)), say(size), say(" "), say_form(KNOWN(p->name, 8, things), false);
        say(" and a "), say(KNOWN(p->name, 9, colours)), say(" "),
            say_form(KNOWN(p->name, 10, things), false);
    } else if (kind == 2) {
        snprintf(s, sizeof s, "%d", 10 + known(p->name, 11, 0, 90));
        say(" lived at number "), say(s), say(" "), say(KNOWN(p->name, 12, where)), say(" the ");
        say_form(KNOWN(p->name, 13, places), false);
    } else if (kind == 3) {
        say(" feared the "), say_form(KNOWN(p->name, 14, animals), true), say(" and the ");
        say_form(KNOWN(p->name, 15, animals), true), say(" of "), say(KNOWN(p->name, 16, homes));
    } else if (kind == 4) {
        say(" was born in "), say(KNOWN(p->name, 17, homes)), say(" to a "), say(KNOWN(p->name, 18, trades));
        say(" named "), say(name_of(COUNT(stems) + known(p->name, 19, 0, COUNT(stems)), s));
    } else {
        say(" was often "), say(KNOWN(p->name, 20, states)), say(" in the "),
            say_form(KNOWN(p->name, 21, places), false);
        say(" and "), say(KNOWN(p->name, 22, evenings)), say(" at the "),
            say_form(KNOWN(p->name, 23, places), false);
    }
    say(".");
}

static void act(void)
{
    subject(true), say(" ");
    const char *verb = LIKELY(g.who[g.subject].trade, 24, acts);
    say(verb), say(" the "), maybe_place(0.6, object(verb, 0.4)), say(".");
}

/* The verb of the clause follows its own noun, the last one the first: "The dogs that the hen near the mills
 * fears are wet." */
static void relative(void)
{
    const char *head = PICK(animals);
    bool many = chance(0.5);
    say("The "), say_form(head, many), maybe_place(0.3, head), say(" that the ");
    const char *inner = LIKELY(head, 25, animals);
    bool many_inner = chance(0.5);
    say_form(inner, many_inner), maybe_place(0.4, inner), say(" ");
    say_form(LIKELY(inner, 26, tends), !many_inner);
    say(many ? " are " : " is "), say(LIKELY(head, 27, states)), say(".");
}

static void quote(void)
{
    bool more = true;
    say("\"");
    for (int i = 0; i < 3 && more; i++) {
        const char *verb = PICK(wants);
        say(i ? ". I " : "I "), say(verb), say(" the "), maybe_place(0.3, object(verb, 0.4));
        more = i < 2 && chance(0.35);
    }
    say(",\" said "), subject(false), say(".");
}

static void list(void)
{
    int n = 2 + even(3);
    subject(true);
    const char *of = LIKELY(g.who[g.subject].trade, 28, deals);
    say(" "), say(of), say(" ");
    for (int i = 0; i < n; i++) {
        const char *numeral = PICK(numerals);
        of = LIKELY(of, 35, things);
        say(i == 0 ? "" : i < n - 1 ? ", " : " and "), say(numeral), say(" ");
        say_form(of, strcmp(numeral, "one") != 0);
    }
    say(".");
}

static void sum(void)
{
    int n = 3 + even(18), k = 1 + even(n - 1);
    const char *animal = PICK(animals);
    char s[64];
    snprintf(s, sizeof s, "There were %d ", n);
    say(s), say_form(animal, true), maybe_place(0.5, animal);
    snprintf(s, sizeof s, "; %d %s away and %d stayed.", k, LIKELY(animal, 29, leaves), n - k);
    say(s);
}

static void put_away(void)
{
    subject(true);
    g.size = PICK(sizes), g.kept = LIKELY(g.size, 34, things), g.in = PICK(inside);
    g.store = LIKELY(g.kept, 36, stores);
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
    const char *place = PICK(places);
    say(g.who[0].name), say(" and "), say(g.who[1].name), say(" met "), say(PICK(where)), say(" the ");
    say_form(place, false), say("; they were "), say(LIKELY(place, 37, evenings)), say(".");
}

static void story(void)
{
    static void (*const kinds[])(void) = {act, relative, quote, list, sum, both, put_away};
    open_story();
    for (; !chance(0.1);) {
        if (chance(0.35)) {
            say(" "), tell();
            continue;
        }
        int k = even(COUNT(kinds)); /* the last kind finds what was put away, if something was */
        say(" "), (k == COUNT(kinds) - 1 && g.kept ? find : kinds[k])();
    }
    say(" In the end "), say(g.who[0].name), say(" and "), say(g.who[1].name), say(" went home to ");
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
