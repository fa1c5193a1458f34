/* What a BSD's libc has and the host's has not. */

#include <err.h>
#include <errno.h>
#include <stdarg.h>

/* Set by those who scan arguments twice. The host's getopt(3) starts anew where it has reached the end. */
int optreset;

void errc(int status, int code, const char *format, ...)
{
	va_list arguments;

	errno = code;
	va_start(arguments, format);
	verr(status, format, arguments);
}
