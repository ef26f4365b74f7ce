/* SPDX-License-Identifier: Apache-2.0
 * What the three files of the tool frame know of each other. */
#ifndef NT_TOOL_PRIV_H
#define NT_TOOL_PRIV_H
#include "common/tool.h"

extern const char *tool_name;

void tool_parse(struct tool *t, const char *operands, const char *summary, const struct opt *opts, int argc,
                char **argv);
void progress_mode(const char *mode);
void progress_clear_line(void); /* before a message, so that it does not follow a half-drawn progress line */
#endif
