/* What a BSD's libc has and the host's has not, for programs that run while the world is built. */

#include <err.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIGNALS 65

const char *dfbuild_siglist[SIGNALS];
const char *dfbuild_signame[SIGNALS];

extern char *program_invocation_short_name;
extern const char *sigabbrev_np(int);

__attribute__((constructor)) static void name_signals(void)
{
	int number;

	for (number = 0; number < SIGNALS; number++) {
		const char *name = sigabbrev_np(number);
		dfbuild_siglist[number] = strdup(strsignal(number));
		dfbuild_signame[number] = name != NULL ? name : "";
	}
}

char *fgetln(FILE *stream, size_t *length)
{
	static char *line;
	static size_t size;
	ssize_t count = getdelim(&line, &size, '\n', stream);

	*length = count > 0 ? count : 0;
	return count > 0 ? line : NULL;
}

const char *getprogname(void)
{
	return program_invocation_short_name;
}

void *reallocf(void *old, size_t size)
{
	void *new = realloc(old, size);

	if (new == NULL && size > 0)
		free(old);
	return new;
}

/* Builds are to come out the same. */
void srandomdev(void)
{
	srandom(1);
}

/* Some move a string within itself, which the host's does not forgive. */
char *strcpy(char *to, const char *from)
{
	return memmove(to, from, strlen(from) + 1);
}

void warnc(int code, const char *format, ...)
{
	va_list arguments;

	errno = code;
	va_start(arguments, format);
	vwarn(format, arguments);
	va_end(arguments);
}
