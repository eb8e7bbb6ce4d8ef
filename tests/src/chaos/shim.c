/* What a node's process sees of its disk and its clock, set from outside while it runs: preloaded
 * into it, controlled by a page of memory that it shares with whoever wrote the file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static struct control {
    volatile int64_t wall_offset_ns;  /* added to the wall clock; the monotonic clock goes on */
    volatile int64_t sync_errors;     /* so many syncs fail, then none */
    volatile int64_t sync_delay_ms;   /* each sync takes so much longer */
    volatile int64_t full;            /* writes to files find no room */
} none, *control = &none;

__attribute__((constructor)) static void start(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const char *path = getenv("CHAOS_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) control = page;
    close(fd);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

static int sync_fails(void) {
    int64_t ms = control->sync_delay_ms;
    if (ms > 0) {
        struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&wait, NULL);
    }
    int64_t left = control->sync_errors;
    if (left <= 0) return 0;
    control->sync_errors = left - 1;
    errno = EIO;
    return 1;
}
int fdatasync(int fd) { REAL(fdatasync); return sync_fails() ? -1 : real(fd); }
int fsync(int fd) { REAL(fsync); return sync_fails() ? -1 : real(fd); }

/* Files only: sockets and pipes have room, and so has what the node says of itself. */
static int no_room(int fd) {
    struct stat stat;
    if (!control->full || fd <= 2 || fstat(fd, &stat) || !S_ISREG(stat.st_mode)) return 0;
    errno = ENOSPC;
    return 1;
}
#define WRITES(name, parameters, arguments) \
    ssize_t name parameters { REAL(name); return no_room(fd) ? -1 : real arguments; }
WRITES(write, (int fd, const void *p, size_t n), (fd, p, n))
WRITES(pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at))
WRITES(pwrite64, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at))

static void shift(struct timespec *time, int64_t by_ns) {
    int64_t ns = time->tv_nsec + by_ns % 1000000000;
    time->tv_sec += by_ns / 1000000000 + (ns >= 1000000000) - (ns < 0);
    time->tv_nsec = ns + 1000000000 * ((ns < 0) - (ns >= 1000000000));
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    REAL(clock_gettime);
    int result = real(clock, time);
    int wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (!result && wall) shift(time, control->wall_offset_ns);
    return result;
}
int gettimeofday(struct timeval *time, void *zone) {
    struct timespec now;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    *time = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return result;
}
/* The kernel does not know of the offset. The version is named: dlsym would find the oldest one. */
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock,
                           const struct timespec *until) {
    static __typeof__(pthread_cond_timedwait) *real;
    if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    struct timespec at = *until;
    if (at.tv_sec > 1000000000) shift(&at, -control->wall_offset_ns); /* else it is monotonic */
    return real(cond, lock, &at);
}
