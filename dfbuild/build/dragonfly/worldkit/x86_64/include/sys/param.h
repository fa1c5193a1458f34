/* The host's <sys/param.h>, with what only BSDs' has. */

#include_next <sys/param.h>

#ifndef DFBUILD_SYS_PARAM_H
#define DFBUILD_SYS_PARAM_H

#define ALIGN(value) (((unsigned long)(value) + sizeof(long) - 1) & ~(sizeof(long) - 1))
#define NELEM(array) (sizeof(array) / sizeof((array)[0]))
#define roundup2(value, unit) (((value) + ((unit) - 1)) & ~((unit) - 1))
#define rounddown2(value, unit) ((value) & ~((unit) - 1))

#endif
