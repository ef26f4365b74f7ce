/* SPDX-License-Identifier: Apache-2.0
 * Output files that appear whole or not at all. Open temporaries are kept in a list so that exit() and a
 * signal handler can remove them. */
#include "common/outfile.h"
#include "common/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BUFFER (256u << 10)

struct outfile {
    int fd;
    bool temporary; /* renamed by commit */
    bool is_stdout;
    char *name; /* for messages */
    char *path; /* final place */
    char *tmp;
    char *buf;
    size_t fill;
    uint64_t pos;  /* bytes accepted so far */
    uint64_t done; /* bytes given to the kernel */
    struct outfile *next;
};

struct outdir {
    char *path, *tmp;
    struct outdir *next;
};

static struct outfile *open_files;
static struct outdir *open_dirs;
static bool stdout_gone;
static pid_t owner; /* a forked child must not remove its parent's files */

bool outfile_stdout_gone(void)
{
    return stdout_gone;
}
bool outfile_is_temporary(const struct outfile *f)
{
    return f->temporary;
}
int outfile_watch_fd(const struct outfile *f)
{
    return f->temporary ? -1 : f->fd;
}
const char *outfile_tmp(const struct outfile *f)
{
    return f->temporary ? f->tmp : NULL;
}
uint64_t outfile_pos(const struct outfile *f)
{
    return f->pos;
}
const char *outfile_name(const struct outfile *f)
{
    return f->name;
}

void outfile_unlink_all(void)
{
    if (getpid() != owner) return;
    for (struct outfile *f = open_files; f; f = f->next)
        if (f->tmp) unlink(f->tmp);
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *ftw)
{
    (void)st, (void)what, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void outfile_cleanup(void)
{
    if (getpid() != owner) return;
    outfile_unlink_all();
    for (struct outdir *d = open_dirs; d; d = d->next) remove_tree(d->tmp);
}

static void register_cleanup(void)
{
    if (owner == getpid()) return;
    if (!owner) atexit(outfile_cleanup);
    owner = getpid();
}

/* "dir/.name.nt-PID" beside the file that path names (symbolic links are followed: the link stays a link). */
static char *sibling(const char *path, char **final)
{
    char real[PATH_MAX];
    *final = mem_strdup(realpath(path, real) ? real : path);
    char *slash = strrchr(*final, '/');
    if (!slash) return mem_printf(".%s.nt-%ld", *final, (long)getpid());
    return mem_printf("%.*s/.%s.nt-%ld", (int)(slash - *final), *final, slash + 1, (long)getpid());
}

static struct outfile *new_file(int fd, const char *name)
{
    struct outfile *f = MEM_NEW(struct outfile, 1);
    f->fd = fd;
    f->name = mem_strdup(name);
    f->buf = MEM_NEW(char, BUFFER);
    register_cleanup();
    f->next = open_files;
    open_files = f;
    return f;
}

static void free_file(struct outfile *f)
{
    for (struct outfile **p = &open_files; *p; p = &(*p)->next)
        if (*p == f) {
            *p = f->next;
            break;
        }
    mem_free(f->name);
    mem_free(f->path);
    mem_free(f->tmp);
    mem_free(f->buf);
    mem_free(f);
}

static struct outfile *open_stdout(struct err *e)
{
    struct stat st;
    if (isatty(STDOUT_FILENO)) {
        err_set(e, NT_EXIT_USAGE, "will not write binary data to a terminal: give -o FILE or a pipe");
        return NULL;
    }
    if (fstat(STDOUT_FILENO, &st)) {
        err_set(e, NT_EXIT_IO, "<stdout>: %s", strerror(errno));
        return NULL;
    }
    struct outfile *f = new_file(STDOUT_FILENO, "<stdout>");
    f->is_stdout = true;
    return f;
}

static struct outfile *open_special(const char *path, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        int no = errno;
        if (!err_stopped(e)) err_set(e, NT_EXIT_IO, "%s: %s", path, strerror(no));
        return NULL;
    }
    if (isatty(fd)) {
        close(fd);
        err_set(e, NT_EXIT_USAGE, "%s: will not write binary data to a terminal", path);
        return NULL;
    }
    return new_file(fd, path);
}

struct outfile *outfile_adopt(int fd, const char *path)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    return new_file(fd, path);
}

struct outfile *outfile_open(const char *path, struct err *e)
{
    struct stat st;
    if (!strcmp(path, "-")) return open_stdout(e);
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
        err_set(e, NT_EXIT_IO, "%s: is a directory", path);
        return NULL;
    }
    if (!stat(path, &st) && !S_ISREG(st.st_mode)) return open_special(path, e);

    struct outfile *f =
        new_file(-1, path); /* all memory first: a file is never there without somebody to remove it */
    char *tmp = sibling(path, &f->path);
    f->fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        err_set(e, NT_EXIT_IO, "%s: cannot create: %s", path, strerror(errno));
        mem_free(tmp);
        free_file(f);
        return NULL;
    }
    f->temporary = true;
    f->tmp = tmp;
    return f;
}

static int io_error(struct outfile *f, int no, struct err *e)
{
    if (no == EPIPE) {
        if (f->is_stdout) stdout_gone = true;
        return err_set(e, NT_EXIT_IO, "%s: the program that reads it went away", f->name);
    }
    return err_set(e, NT_EXIT_IO, "%s: %s (after %llu bytes)", f->name, strerror(no),
                   (unsigned long long)f->done);
}

static int write_all(struct outfile *f, const char *p, size_t n, struct err *e)
{
    while (n) {
        ssize_t k = write(f->fd, p, n < (1u << 30) ? n : 1u << 30);
        if (k < 0 && errno == EINTR) {
            if (err_stopped(e)) return -1;
            continue;
        }
        if (k < 0 && errno == EAGAIN) { /* somebody made our stdout non-blocking */
            struct pollfd w = {f->fd, POLLOUT, 0};
            poll(&w, 1, -1);
            continue;
        }
        if (k < 0) return io_error(f, errno, e);
        p += k;
        n -= (size_t)k;
        f->done += (uint64_t)k;
    }
    return 0;
}

int outfile_flush(struct outfile *f, struct err *e)
{
    size_t n = f->fill;
    f->fill = 0;
    return write_all(f, f->buf, n, e);
}

int outfile_write(struct outfile *f, const void *p, size_t n, struct err *e)
{
    f->pos += n;
    if (n > BUFFER - f->fill && outfile_flush(f, e)) return -1;
    if (n > BUFFER) return write_all(f, p, n, e);
    if (n) memcpy(f->buf + f->fill, p, n);
    f->fill += n;
    return 0;
}

int outfile_commit(struct outfile *f, struct err *e)
{
    int bad = outfile_flush(f, e);
    if (!bad && f->temporary && fsync(f->fd)) bad = io_error(f, errno, e);
    if (close(f->fd) && !bad) bad = io_error(f, errno, e);
    if (f->is_stdout) { /* stdio's later close of stdout must not complain; nothing may write there any more
                         */
        int null = open("/dev/null", O_WRONLY);
        if (null >= 0 && null != STDOUT_FILENO) {
            dup2(null, STDOUT_FILENO);
            close(null);
        }
    }
    if (f->temporary) {
        if (!bad && rename(f->tmp, f->path))
            bad = err_set(e, NT_EXIT_IO, "%s: cannot rename %s: %s", f->name, f->tmp, strerror(errno));
        if (bad) unlink(f->tmp);
    }
    free_file(f);
    return bad ? -1 : 0;
}

void outfile_discard(struct outfile *f)
{
    if (!f) return;
    if (!f->is_stdout) close(f->fd);
    if (f->temporary) unlink(f->tmp);
    free_file(f);
}

struct outdir *outdir_open(const char *path, struct err *e)
{
    struct stat st;
    if (!lstat(path, &st)) {
        err_set(e, NT_EXIT_IO, "%s: exists already", path);
        return NULL;
    }
    struct outdir *d = MEM_NEW(struct outdir, 1);
    char *trimmed = mem_strdup(path);
    for (size_t n = strlen(trimmed); n > 1 && trimmed[n - 1] == '/'; n--) trimmed[n - 1] = 0;
    d->tmp = sibling(trimmed, &d->path);
    mem_free(trimmed);
    if (mkdir(d->tmp, 0777)) {
        err_set(e, NT_EXIT_IO, "%s: cannot create: %s", path, strerror(errno));
        mem_free(d->tmp);
        mem_free(d->path);
        mem_free(d);
        return NULL;
    }
    register_cleanup();
    d->next = open_dirs;
    open_dirs = d;
    return d;
}

const char *outdir_tmp(const struct outdir *d)
{
    return d->tmp;
}

static void free_dir(struct outdir *d)
{
    for (struct outdir **p = &open_dirs; *p; p = &(*p)->next)
        if (*p == d) {
            *p = d->next;
            break;
        }
    mem_free(d->tmp);
    mem_free(d->path);
    mem_free(d);
}

int outdir_commit(struct outdir *d, struct err *e)
{
    int bad = 0;
    struct stat st;
    /* rename() would replace an empty directory that somebody made meanwhile */
    if (!lstat(d->path, &st))
        bad = err_set(e, NT_EXIT_IO, "%s: exists already", d->path);
    else if (rename(d->tmp, d->path))
        bad = err_set(e, NT_EXIT_IO, "%s: cannot rename %s: %s", d->path, d->tmp, strerror(errno));
    if (bad) remove_tree(d->tmp);
    free_dir(d);
    return bad;
}

void outdir_discard(struct outdir *d)
{
    if (!d) return;
    remove_tree(d->tmp);
    free_dir(d);
}

uint64_t disk_free(const char *path)
{
    struct statvfs v;
    char *dir = mem_strdup(path);
    int bad = statvfs(dir, &v);
    while (bad && errno == ENOENT) { /* a file that is still to be made: ask its directory */
        char *slash = strrchr(dir, '/');
        if (!slash || slash == dir) {
            bad = statvfs(slash ? "/" : ".", &v);
            break;
        }
        *slash = 0;
        bad = statvfs(dir, &v);
    }
    mem_free(dir);
    return bad ? UINT64_MAX : (uint64_t)v.f_bavail * v.f_frsize;
}
