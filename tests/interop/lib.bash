# SPDX-License-Identifier: Apache-2.0
# What the opt-in tests share: a text everybody has, numbers of a table, closeness.
. tests/tap.bash
near() { # near A B RELATIVE: |A - B| <= RELATIVE * |B|
    awk -v a="$1" -v b="$2" -v r="$3" 'BEGIN { d = a > b ? a - b : b - a; exit !(a == a + 0 && b == b + 0 && d <= r * (b < 0 ? -b : b)) }' ||
        { echo "$1 is not within $3 of $2" >&2; return 1; }
}
# English prose of a few ten thousand tokens that is always there: the project's own man pages.
prose() { for p in man/*.[157]; do LC_ALL=C MANWIDTH=100 man -l "$p" 2>/dev/null | col -b; done >"$1"; }
value() { awk -F'\t' -v m="$1" '$2 == m { print $5; exit }'; } # value METRIC <table of nt-eval
# llama_ppl MODEL TEXT CHUNKS: llama.cpp's perplexity over the first windows of 512, keys and values in F32. Linked with a BLAS
# it multiplies in F32, and $llama_near is a thousandth; else it rounds activations to 8 bits where weights are quantized, which
# moves the perplexity by up to a hundredth. It may end before its log's last lines are out.
llama_near=0.01
if ldd "${NT_LLAMA_BIN:-}/llama-perplexity" 2>/dev/null | grep -q blas; then llama_near=0.001; fi
llama_ppl() {
    local i
    for i in {1..5}; do
        "$NT_LLAMA_BIN/llama-perplexity" -m "$1" -f "$2" -c 512 --chunks "$3" -t "$(nproc)" -nr -fa off -ctk f32 -ctv f32 >"$tmp/llama.log" 2>&1 || break
        sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p' "$tmp/llama.log" | grep . && return
    done
    tail -n 4 "$tmp/llama.log" >&2
    return 1
}
# again CKPT: imported, and written from the stream alone: the same bytes
again() {
    local f new=$tmp/again rc=0
    rm -rf "$new"
    nt-quant -q import "$1" --progress none 2>"$tmp/again.log" | nt-pack --format same -o "$new" --progress none 2>>"$tmp/again.log" || { cat "$tmp/again.log" >&2; return 1; }
    if [ -d "$1" ]; then for f in "$1"/*.safetensors "$1"/*.json; do cmp "$f" "$new/${f##*/}" || rc=1; done; else cmp "$1" "$new" || rc=1; fi
    rm -rf "$new"
    return $rc
}
