# SPDX-License-Identifier: Apache-2.0
# awk -v n=200 -f last-words.awk TEXT: n items for nt-eval --lambada, spread evenly over a text whose paragraphs are lines: the
# sentences from the beginning of a paragraph up to the first that ends after 50 words or more in a plain word (three or more
# lower-case letters), without the full stop. LAMBADA's form, but nobody has chosen passages where people can guess the word.
{
    gsub(/[[:cntrl:]]/, " ")
    item = ""
    for (i = 1; i <= NF; i++) {
        stop = $i == "."
        word = stop ? $(i - 1) : substr($i, 1, length($i) - 1)
        if (i > 50 && (stop || $i ~ /\.$/) && word ~ /^[a-z][a-z][a-z]+$/) {
            if (!stop) item = item (i > 1 ? " " : "") word
            gsub(/["\\]/, "\\\\&", item)
            items[m++] = item
            break
        }
        item = item (i > 1 ? " " : "") $i
    }
}
END {
    if (m < n) n = m
    for (i = 0; i < n; i++) printf "{\"text\": \"%s\"}\n", items[int(i * m / n)]
}
