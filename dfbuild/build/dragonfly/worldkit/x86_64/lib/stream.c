/* What a BSD's libc has and the host's has not, for programs of the trees of 2017 to 2020. */

#include <stdio.h>
#include <stdlib.h>

struct writer {
	void *cookie;
	int (*put)(void *, const char *, int);
};

static ssize_t put(void *cookie, const char *bytes, size_t count)
{
	struct writer *writer = cookie;
	int written = writer->put(writer->cookie, bytes, (int)count);

	return written < 0 ? 0 : written;
}

static int discard(void *cookie)
{
	free(cookie);
	return 0;
}

FILE *fwopen(void *cookie, int (*function)(void *, const char *, int))
{
	struct writer *writer = malloc(sizeof(*writer));
	FILE *stream;

	if (writer == NULL)
		return NULL;
	writer->cookie = cookie;
	writer->put = function;
	stream = fopencookie(writer, "w", (cookie_io_functions_t){.write = put, .close = discard});
	if (stream == NULL)
		free(writer);
	return stream;
}
