/* What a BSD's <sys/cdefs.h> and libc headers declare and a Linux host's do not. Read before every C file, some of
 * which will have their own configuration before any header of the host, and some are only preprocessed, for lists:
 * names are defined here, and nothing is declared. */

#ifndef DFBUILD_BSD_H
#define DFBUILD_BSD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#define __dead2 __attribute__((__noreturn__))
#define __pure2 __attribute__((__const__))
#define __unused __attribute__((__unused__))
#define __printflike(format, first)
#define __printf0like(format, first)
#define __FBSDID(text) struct dfbuild_no_identity
#define __RCSID(text) struct dfbuild_no_identity
#define __DECONST(type, pointer) ((type)(unsigned long)(const void *)(pointer))

#endif
