# SPDX-License-Identifier: Apache-2.0
# The ring with nt-collect in one network namespace, nt-quant and nt-tweak in another, joined by sockets: the same bytes.
. tests/cli/ring/lib.bash
a=nt-a-$$ b=nt-b-$$
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null || ! ip netns add $a 2>/dev/null; then
    skip_all needs root and ip netns
fi
at_end='ip netns del $a; ip netns del $b 2>/dev/null'
if ! { ip netns add $b && ip link add va-$$ netns $a type veth peer name vb-$$ netns $b && ip -n $a addr add 10.231.0.1/30 dev va-$$ &&
    ip -n $b addr add 10.231.0.2/30 dev vb-$$ && ip -n $a link set va-$$ up && ip -n $b link set vb-$$ up; } 2>/dev/null; then
    skip_all cannot join two network namespaces here
fi
L=4
make_model $L || exit 1
ring 1 "$tmp/q.nts"
cat >"$tmp/link.py" <<'END'
"""link.py listen HOST PORT: a socket to stdout; link.py send HOST PORT: stdin to a socket."""
import os, socket, sys, time
how, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if how == "listen":
    with socket.create_server((host, port)) as server:
        peer = server.accept()[0]
    while data := peer.recv(65536):
        os.write(1, data)
else:
    while True:
        try:
            peer = socket.create_connection((host, port))
            break
        except OSError:
            time.sleep(0.05)
    while data := os.read(0, 65536):
        peer.sendall(data)
END
in_ns() { local ns=$1; shift; timeout 300 ip netns exec "$ns" "$@"; }
mkfifo "$tmp/ra" "$tmp/rb"
in_ns $a "$PYTHON" "$tmp/link.py" listen 10.231.0.1 5002 >"$tmp/ra" &
in_ns $b "$PYTHON" "$tmp/link.py" send 10.231.0.1 5002 <"$tmp/rb" &
in_ns $a nt-collect $q -m "$M" --tokens "$C" --want hessian,targets --acts-in "$tmp/ra" 2>"$tmp/err1" |
    in_ns $a "$PYTHON" "$tmp/link.py" send 10.231.0.2 5001 &
in_ns $b "$PYTHON" "$tmp/link.py" listen 10.231.0.2 5001 | in_ns $b nt-quant $q -m "$M" -q gptq -b 3 -g 16 2>"$tmp/err2" |
    in_ns $b nt-tweak $q -m "$M" --tokens "$C" --acts-out "$tmp/rb" -o "$tmp/far.nts" 2>"$tmp/err3"
rc=("${PIPESTATUS[@]}")
wait
[ "${rc[*]}" = "0 0 0" ]; ok $? "two network namespaces joined by sockets (exits ${rc[*]}) $(cat "$tmp/err1" "$tmp/err2" | tail -n 1)"
cmp -s "$tmp/q.nts" "$tmp/far.nts"; ok $? "the same bytes as on one machine"
finish
