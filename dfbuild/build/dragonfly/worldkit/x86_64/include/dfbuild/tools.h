/* What the tree's own programs expect of their libc, for those that run on this host. Read before every C file. */

#ifndef DFBUILD_TOOLS_H
#define DFBUILD_TOOLS_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

/* Arguments are to be expanded before they are joined. */
#undef __CONCAT
#define __CONCAT1(left, right) left##right
#define __CONCAT(left, right) __CONCAT1(left, right)

/* Of <sys/cdefs.h>. */
#define __PAST_END(array, index) (((__typeof__(*(array)) *)(array))[index])
#define __packed __attribute__((__packed__))
#define __pure __attribute__((__pure__))

/* Types. */
#define QUAD_MAX LLONG_MAX
#define QUAD_MIN LLONG_MIN

/* Files. */
#define EFTYPE EINVAL
#define MAXBSIZE 65536
#define O_EXLOCK 0
#define O_SHLOCK 0
#define S_ISTXT S_ISVTX
#define st_atimespec st_atim
#define st_ctimespec st_ctim
#define st_mtimespec st_mtim

/* Libc's inner names. */
#define __DBINTERFACE_PRIVATE 1
#define _close close
#define _fcntl fcntl
#define _fstat fstat
#define _fsync fsync
#define _getpagesize getpagesize
#define _open open
#define _read read
#define _sigprocmask sigprocmask
#define _unlink unlink
#define _write write
#define _writev writev

/* Libc. */
#define arc4random random
#define issetugid() 0
#define sys_nsig 65
#define sys_siglist dfbuild_siglist
#define sys_signame dfbuild_signame

extern int optreset;
extern const char *dfbuild_siglist[];
extern const char *dfbuild_signame[];

char *fgetln(FILE *, size_t *);
FILE *fwopen(void *, int (*)(void *, const char *, int));
const char *getprogname(void);
void *recallocarray(void *, size_t, size_t, size_t);
void *reallocf(void *, size_t);
void srandomdev(void);
size_t strlcat(char *, const char *, size_t);
size_t strlcpy(char *, const char *, size_t);
void strmode(mode_t, char *);
long long strtonum(const char *, long long, long long, const char **);
void warnc(int, const char *, ...);

#endif
