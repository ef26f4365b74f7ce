/* SPDX-License-Identifier: Apache-2.0
 * Unlinked as soon as it is open: whatever ends the process, nothing is left behind. */
#include "common/tempfile.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/mem.h"

struct tempfile {
    int fd;
    uint64_t size;
};

const char *tempfile_dir(void)
{
    const char *dir = getenv("TMPDIR");
    return dir && *dir ? dir : "/tmp";
}

struct tempfile *tempfile_open(struct err *e)
{
    char *name = mem_printf("%s/nt-XXXXXX", tempfile_dir());
    struct tempfile *t = NULL;
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0) {
        err_set(e, NT_EXIT_IO, "%s: %s", name, strerror(errno));
    } else {
        unlink(name);
        t = MEM_NEW(struct tempfile, 1);
        t->fd = fd;
    }
    mem_free(name);
    return t;
}

void tempfile_close(struct tempfile *t)
{
    if (!t) return;
    close(t->fd);
    mem_free(t);
}

uint64_t tempfile_size(const struct tempfile *t)
{
    return t->size;
}

int file_write_at(int fd, const void *p, size_t n, uint64_t at)
{
    for (size_t k = 0; k < n;) {
        ssize_t w = pwrite(fd, (const char *)p + k, n - k, (off_t)(at + k));
        if (w < 0 && errno == EINTR) continue;
        if (w == 0) errno = EIO;
        if (w <= 0) return -1;
        k += (size_t)w;
    }
    return 0;
}

int tempfile_append(struct tempfile *t, const void *p, size_t n, struct err *e)
{
    if (file_write_at(t->fd, p, n, t->size))
        return err_set(e, NT_EXIT_IO, "temporary file in %s: %s", tempfile_dir(), strerror(errno));
    t->size += n;
    return 0;
}

int tempfile_read(const struct tempfile *t, void *p, size_t n, uint64_t at, struct err *e)
{
    for (size_t k = 0; k < n;) {
        ssize_t r = pread(t->fd, (char *)p + k, n - k, (off_t)(at + k));
        if (r < 0 && errno == EINTR) continue;
        if (r <= 0)
            return err_set(e, NT_EXIT_IO, "temporary file in %s: %s", tempfile_dir(),
                           r < 0 ? strerror(errno) : "it became shorter");
        k += (size_t)r;
    }
    return 0;
}

void *tempfile_map(const struct tempfile *t, struct err *e)
{
    void *p = mmap(NULL, (size_t)t->size, PROT_READ, MAP_SHARED, t->fd, 0);
    if (p != MAP_FAILED) return p;
    err_set(e, NT_EXIT_IO, "temporary file in %s: cannot be mapped: %s", tempfile_dir(), strerror(errno));
    return NULL;
}

/* ---- input that is read more than once ---- */

static int copy_from(struct respool *s, int from, struct err *e)
{
    const size_t chunk = 1 << 20;
    char *buf = MEM_NEW(char, chunk);
    ssize_t n = 0;
    int rc = (s->copy = tempfile_open(e)) ? 0 : -1;
    while (!rc && (n = read(from, buf, chunk)) != 0) {
        if (n > 0)
            rc = tempfile_append(s->copy, buf, (size_t)n, e);
        else if (errno != EINTR)
            rc = err_set(e, NT_EXIT_IO, "%s: %s", s->given, strerror(errno));
        if (!rc) rc = err_stopped(e);
    }
    if (!rc) s->path = mem_printf("/proc/self/fd/%d", s->copy->fd);
    mem_free(buf);
    return rc;
}

bool respool_copies(const char *path)
{
    struct stat st;
    return !strcmp(path, "-") || stat(path, &st) || !S_ISREG(st.st_mode);
}

int respool_open(struct respool *s, const char *path, struct err *e)
{
    bool standard = !strcmp(path, "-");
    *s = (struct respool){.given = standard ? "<stdin>" : path};
    if (!respool_copies(path)) {
        s->path = mem_strdup(path);
        return 0;
    }
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(errno));
    int rc = copy_from(s, fd, e);
    if (!standard) close(fd);
    return rc;
}

void respool_clear(struct respool *s)
{
    tempfile_close(s->copy);
    mem_free(s->path);
    *s = (struct respool){.given = s->given};
}
