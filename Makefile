# SPDX-License-Identifier: Apache-2.0
#
# nt-*: low-bit quantization as a pipeline of small C tools.
#
#   make                 build/bin/nt-*                         make check      every test that needs no download
#   make deps            Debian packages                        make san        the same under address,undefined
#   make demo            everything on the embedded model, in two minutes: a table and plots
#   make demo-smollm2    the main job on SmolLM2-135M           make interop    opt-in tests with programs from PyPI
#   make bench           build/bench.tsv                        make ci         what .ci/run runs
#   make install         PREFIX=/usr/local DESTDIR=             make clean
#
# Knobs: DEV=1 warnings are errors; SANITIZE=address,undefined; O=DIR build directory; ONEDNN= without bf16; PYTHON=python3 for the oracles;
# MODEL=PATH and TEXT=PATH for demo-smollm2. Lists are made from the directories: a file added to common/quantizers,
# common/families, common/losses, common/checkpoints, tools, tests needs no other edit.

SHELL   := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := all

CC      ?= cc
O       ?= build
PREFIX  ?= /usr/local
PYTHON  ?= $(firstword $(wildcard /usr/bin/python3) python3)
VERSION := 0.1.0

DEBS := gcc make pkg-config libc6-dev libopenblas-dev libmsgpack-dev libarchive-dev libarchive-tools libjansson-dev \
        libpcre2-dev libutf8proc-dev libexttextcat-dev libexttextcat-data libxxhash-dev libzstd-dev libssl-dev \
        libdnnl-dev python3 python3-msgpack python3-numpy python3-pip python3-venv man-db zstd gnuplot-nox bsdextrautils
MSGPACK := $(shell pkg-config --exists msgpack-c 2>/dev/null && echo msgpack-c || echo msgpack)
PKGS := $(MSGPACK) libarchive jansson libpcre2-8 libutf8proc libxxhash libzstd libcrypto libexttextcat

# --precision bf16 needs oneDNN 2.x. Debian's libdnnl-dev has no .pc file, so what pkg-config does not know is tried with
# the compiler. ONEDNN= (empty) builds without; the tools then refuse --precision bf16.
ifeq ($(origin ONEDNN),undefined)
ONEDNN_TRY := \#include <oneapi/dnnl/dnnl.h>\nint main(void) { dnnl_matmul_desc_t d; return sizeof d == dnnl_version()->major; }\n
ONEDNN := $(shell pkg-config --libs 'dnnl < 3' 2>/dev/null || \
                  { printf '$(ONEDNN_TRY)' | $(CC) -x c -o /dev/null - -ldnnl && echo -ldnnl; } 2>/dev/null)
endif

WARN    := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings
CFLAGS  ?= -O3 -g
ARCH    ?=
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -DNT_VERSION='"$(VERSION)"' $(WARN) $(if $(DEV),-Werror) -fopenmp -ffp-contract=off \
             $(if $(ONEDNN),-DNT_ONEDNN) -I. -I$(O)/gen $(shell pkg-config --cflags $(PKGS) 2>/dev/null) $(CFLAGS) $(ARCH) \
             $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
ALL_LDLIBS = $(shell pkg-config --libs $(PKGS) 2>/dev/null) $(ONEDNN) -lopenblas -lm -lpthread -ldl
ALL_LDFLAGS = -fopenmp $(LDFLAGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE))

TOOLS   := $(patsubst tools/%.c,%,$(wildcard tools/nt-*.c))
COMMON  := $(wildcard common/*.c common/checkpoints/*.c common/families/*.c common/quantizers/*.c common/losses/*.c common/packers/*.c)
KERNELS := $(filter-out $(if $(ONEDNN),,kernels/cpu_bf16%.c),$(wildcard kernels/*.c))
STORY   := $(O)/tests/data/embedded/story
UNITS   := $(patsubst tests/%.c,%,$(wildcard tests/unit/test_*.c tests/ops/test_*.c))
TESTLIB := $(filter-out tests/unit/test_%.c tests/ops/test_%.c,$(wildcard tests/unit/*.c tests/ops/*.c))
FUZZ    := $(patsubst tests/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
objs     = $(patsubst %.c,$(O)/obj/%.o,$(1))

.PHONY: all check san fuzz bench demo demo-smollm2 interop deps install ci clean lists layers FORCE
all: $(TOOLS:%=$(O)/bin/%)

# Slots: build/gen/NAME.inc holds X(stem) for every file of the directory, rewritten only when the list changes.
SLOTS := quantizers families losses checkpoints packers
lists: $(SLOTS:%=$(O)/gen/%.inc)
$(O)/gen/%.inc: FORCE
	@mkdir -p $(@D); { ls common/$*/*.c 2>/dev/null || true; } | sed 's|.*/\(.*\)\.c|X(\1)|;y/-/_/' | LC_ALL=C sort >$@.tmp; \
	cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@
FORCE:

$(O)/obj/%.o: %.c $(O)/flags.stamp | lists
	@mkdir -p $(@D)
	@echo "  CC    $<"; $(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@
# kernels are compiled for the machine they run on by function multiversioning, never by -march=native
$(O)/flags.stamp: FORCE
	@mkdir -p $(@D); echo '$(CC) $(subst ','\'',$(ALL_CFLAGS))' >$@.tmp; cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@

$(O)/libnt.a: $(call objs,$(COMMON) $(KERNELS))
	@rm -f $@; echo "  AR    $@"; ar rcs $@ $^
$(O)/bin/%: $(O)/obj/tools/%.o $(O)/libnt.a
	@mkdir -p $(@D)
	@echo "  LD    $@"; $(CC) $(ALL_LDFLAGS) $^ $(ALL_LDLIBS) -o $@
$(O)/tests/%: $(O)/obj/tests/%.o $(call objs,$(TESTLIB)) $(O)/libnt.a
	@mkdir -p $(@D)
	@echo "  LD    $@"; $(CC) $(ALL_LDFLAGS) $^ $(ALL_LDLIBS) -o $@
-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)

check: all $(STORY) $(UNITS:%=$(O)/tests/%) $(FUZZ:%=$(O)/tests/%) layers
	@O=$(O) PYTHON=$(PYTHON) tests/run $(UNITS:%=$(O)/tests/%) $(FUZZ:%=$(O)/tests/%) $(wildcard tests/cli/*/*.sh)
layers:
	@tests/layers
san:
	@$(MAKE) O=$(O)-san SANITIZE=address,undefined CFLAGS='-O1 -g' check
interop: all $(UNITS:%=$(O)/tests/%)
	@O=$(O) PYTHON=$(PYTHON) tests/interop/run $(UNITS:%=$(O)/tests/%) $(wildcard tests/cli/*/*.sh)
bench: all
	@O=$(O) tests/bench/run
fuzz: $(FUZZ:%=$(O)/tests/%)
	@for f in $^; do $$f -runs=200000; done

deps:
	@missing=$$(for p in $(DEBS); do dpkg -s $$p 2>/dev/null | grep -q '^Status: install ok' || echo $$p; done); \
	if [ -z "$$missing" ]; then exit 0; \
	elif [ "$$(id -u)" = 0 ]; then apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
	else echo "missing packages; as root: apt-get install -y --no-install-recommends" $$missing >&2; exit 1; fi

demo: all $(STORY)
	@O=$(O) pipelines/demo.sh
demo-smollm2: all
	@O=$(O) MODEL='$(MODEL)' TEXT='$(TEXT)' pipelines/demo-smollm2.sh

ci:
	@PYTHON=$(PYTHON) tests/ci

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5 \
	  $(DESTDIR)$(PREFIX)/share/man/man7 $(DESTDIR)$(PREFIX)/share/nt/pipelines
	install -m 755 $(TOOLS:%=$(O)/bin/%) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(wildcard man/*.1) $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(wildcard man/*.5) $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 644 $(wildcard man/*.7) $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 755 $(wildcard pipelines/*) $(DESTDIR)$(PREFIX)/share/nt/pipelines
clean:
	rm -rf $(O) $(O)-san
